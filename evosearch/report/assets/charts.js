"use strict";
// Charts by plotly; every number in them stands in the page's two JSON elements.
const pareto = JSON.parse(document.getElementById("pareto-data").textContent);
const page = JSON.parse(document.getElementById("page-data").textContent);
for (const option of document.querySelectorAll("#axis option"))
  option.textContent = option.textContent.replace("accuracy", page.metric);
const groups = Object.keys(page.sizes);
const percent = (share) => (100 * share).toFixed(2);
const accuracyText = (row) => `${percent(row.accuracy)} (${(100 * row.accuracy_low).toFixed(1)} to ${(100 * row.accuracy_high).toFixed(1)})`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
// Plotly reads a little HTML in texts; names are to be shown as they are.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Every network carries its texts under the headings of `page.heads`.
const carry = (rows, cells) => rows.forEach((row, i) => { row.cells = cells[i]; });
carry(pareto.front, page.cells.front);
carry(page.dominated, page.cells.dominated);
carry(pareto.references, page.cells.references);
for (const [name, rival] of Object.entries(pareto.baselines)) carry(rival.front, page.cells.baselines[name]);

async function loadPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function draw(id, traces, layout) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line") };
  const full = {
    autosize: true, height: 360, margin: { l: 60, r: 12, t: 8, b: 48 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), size: 12 }, hoverlabel: { align: "left" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
    ...layout,
    xaxis: { ...axis, automargin: true, ...layout.xaxis },
    yaxis: { ...axis, automargin: true, ...layout.yaxis },
  };
  return Plotly.react(id, traces, full, { responsive: true, displaylogo: false, displayModeBar: false });
}

function hover(name, row) {
  const tied = row.tied && row.tied.length ? `<br>tied with ${row.tied.join(", ")}` : "";
  const lines = page.heads.map((head, i) => `<br>${plain(head)} ${plain(row.cells[i])}`);
  return `<b>${plain(name)}</b>${lines.join("")}${tied}`;
}

// 95 % intervals of accuracies, standard errors of losses.
function bars(rows, measure) {
  if (measure === "loss") return { array: rows.map((row) => row.loss_se) };
  return { symmetric: false, array: rows.map((row) => 100 * (row.accuracy_high - row.accuracy)),
    arrayminus: rows.map((row) => 100 * (row.accuracy - row.accuracy_low)) };
}

function points(label, rows, measure, style, name = (row) => `trial ${row.trial}`) {
  const scale = measure === "loss" ? 1 : 100;
  return {
    type: "scatter", name: plain(label), x: rows.map((row) => 100 * row[page.axis.key]),
    y: rows.map((row) => scale * row[measure]), text: rows.map((row) => hover(name(row), row)),
    hovertemplate: "%{text}<extra></extra>",
    ...(style.bars ? { error_y: { ...bars(rows, measure), thickness: 1, width: 2 } } : {}),
    ...style,
  };
}

function drawFront() {
  const choice = document.getElementById("axis").value;
  const measure = choice === "loss" ? "loss" : "accuracy";
  const [base, ...references] = pareto.references;
  const knee = pareto.front.filter((row) => row.knee);
  const ownTrials = (rows) => rows.map((row) => row.trial);
  const traces = [
    points("dominated", page.dominated, measure, { mode: "markers",
      customdata: ownTrials(page.dominated), marker: { color: colour("dominated"), size: 6 } }),
    ...[...new Set(references.map((row) => row.name))].map((name, i) =>
      points(name, references.filter((row) => row.name === name), measure, { mode: "markers", bars: true,
        marker: { color: colour("reference"), symbol: ["square", "diamond", "triangle-up"][i % 3], size: 7 } }, (row) => row.name)),
    ...Object.entries(pareto.baselines).map(([name, rival], i) => points(name, rival.front, measure,
      { mode: "lines+markers", opacity: 0.8, line: { dash: "dot", width: 1, color: colour(`rival${i % 3}`) },
        marker: { size: 5 } }, (row) => `${name}, trial ${row.trial}`)),
    points("front", pareto.front, measure, { mode: "lines+markers", bars: true,
      customdata: ownTrials(pareto.front), line: { color: colour("front") }, marker: { size: 8 } }),
    points("knee", knee, measure, { mode: "markers", hoverinfo: "skip", hovertemplate: undefined,
      marker: { size: 17, color: "rgba(0,0,0,0)", line: { color: colour("knee"), width: 2 } } }),
    points("base network", base ? [base] : [], measure, { mode: "markers", bars: true,
      marker: { symbol: "star", size: 12, color: colour("ink") } }, (row) => row.name),
  ];
  const chosen = find(state.trial);
  if (chosen) traces.push(points("chosen", [chosen], measure, { mode: "markers", hoverinfo: "skip",
    hovertemplate: undefined, showlegend: false, marker: { size: 13, symbol: "circle-open", color: colour("ink") } }));
  const yaxis = { title: { text: measure === "loss" ? "search loss" : `search ${page.metric}, %` } };
  if (choice === "loss") yaxis.type = "log";
  if (choice === "near") {
    const near = [base, ...pareto.front].filter(Boolean);
    const low = 100 * Math.min(...near.map((row) => row.accuracy_low)) - 0.3;
    const high = 100 * Math.max(...near.map((row) => row.accuracy_high));
    if (near.length) yaxis.range = [low, Math.min(high, 100.4)];
  }
  return draw("front-chart", traces, {
    height: 460, hovermode: "closest", yaxis,
    xaxis: { title: { text: `${page.axis.label}, % of the base network` } },
  });
}

function drawWidths() {
  const row = find(state.trial);
  const bar = (name, widths, shade) => ({
    type: "bar", orientation: "h", name, y: groups.map(plain), x: widths, marker: { color: shade },
    hovertemplate: `%{y}: %{x}<extra>${name}</extra>`,
  });
  const sizes = Object.values(page.sizes);
  const traces = [bar("base network", sizes, colour("dominated"))];
  if (row) traces.push(bar(`trial ${row.trial}`, widthsOf(row), colour("front")));
  return draw("width-chart", traces, {
    barmode: "overlay", height: 90 + 24 * groups.length, showlegend: false, bargap: 0.25,
    xaxis: { title: { text: "channels kept" } }, yaxis: { autorange: "reversed", type: "category" },
  });
}

function drawKept() {
  const channels = Math.max(...Object.values(page.sizes));
  const z = groups.map((group) => [...page.kept[group], ...Array(channels - page.sizes[group]).fill(null)]);
  return draw("kept-chart", [{
    type: "heatmap", z, y: groups.map(plain), xgap: channels > 128 ? 0 : 1, ygap: 2, zmin: 0,
    zmax: Math.max(1, pareto.front.length), hoverongaps: false,
    colorscale: [[0, colour("line")], [1, colour("front")]],
    colorbar: { thickness: 10, title: { text: "members", side: "right" } },
    hovertemplate: "%{y}, channel %{x}: kept by %{z}<extra></extra>",
  }], {
    height: 90 + 26 * groups.length, xaxis: { title: { text: "channel" }, showgrid: false },
    yaxis: { autorange: "reversed", type: "category", showgrid: false },
  });
}

function drawConvergence(id, column, label) {
  const traces = Object.entries(page.convergence).map(([name, own], i) => ({
    type: "scatter", mode: "lines", name: plain(name), x: own[column], y: own.hypervolume,
    line: { shape: "hv", width: i ? 1.3 : 2.5, color: colour(i ? `rival${(i - 1) % 3}` : "front") },
  }));
  const volumes = Object.values(page.convergence).map((own) => own.hypervolume.at(-1));
  const low = Math.max(0, 0.8 * Math.min(...volumes)), high = Math.max(...volumes);
  return draw(id, traces, {
    height: 320, hovermode: "closest", showlegend: true, xaxis: { title: { text: label } },
    yaxis: { title: { text: "hypervolume, share of the box" }, range: [low, high + 0.1 * (high - low || 1)] },
  });
}
