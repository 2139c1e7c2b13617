// Texts, tables and the chosen network. Texts are set as text, never as HTML.
const state = { trial: (pareto.front.find((row) => row.knee) || { trial: null }).trial };
const element = (id) => document.getElementById(id);
const find = (trial) => [...pareto.front, ...page.dominated].find((row) => row.trial === trial);
const widthsOf = (row) => Array.isArray(row.widths) ? row.widths : groups.map((group) => row.widths[group]);

function add(parent, tag, text, className) {
  const child = document.createElement(tag);
  if (text !== undefined) child.textContent = text;
  if (className) child.className = className;
  parent.append(child);
  return child;
}

function fill(id, caption, heads, rows, texts = []) {
  const table = element(id);
  if (!rows.length) return table.remove();
  if (caption) add(table, "caption", caption);
  const head = add(add(table, "thead"), "tr");
  heads.forEach((name, i) => add(head, "th", name, texts.includes(i) ? "text" : ""));
  const body = add(table, "tbody");
  for (const cells of rows) {
    const row = add(body, "tr");
    cells.forEach((cell, i) => add(row, "td", cell ?? "", texts.includes(i) ? "text" : ""));
  }
}

function fillTable(id, caption) {
  fill(id, caption, page.tables[id].heads, page.tables[id].rows);
}

function fillTables() {
  fillTable("members", "");
  fillTable("references", "Measured beside the search");
  fillTable("baselines", "Searched beside");
  fillTable("distilled", `Finished (${page.made}), measured on test once`);
  document.querySelectorAll("#members tbody tr").forEach((line, i) => {
    line.className = "pick";
    line.addEventListener("click", () => choose(pareto.front[i].trial));
  });
  if (!pareto.front.some((row) => (row.tied || []).length)) element("tie-note").remove();
  fill("ladder", "", ["rung", "candidates", "time, s", "Kendall tau with the next (pairs)", ""],
    pareto.ladder.map((row) => [row.rung.toLowerCase().replace("_", "-") + (row.images ? `, ${row.images} images` : ""),
      row.candidates, row.seconds === null ? "" : row.seconds.toFixed(1),
      row.tau === null ? "" : `${row.tau.toFixed(2)} (${row.pairs})`,
      row.tau !== null && row.tau < page.misleading ? `misleads: under ${page.misleading}` : ""]));
  fillGroups();
  fill("environment", "", ["", ""], Object.entries(page.environment || {}), [1]);
}

function fillGroups() {
  const proven = pareto.proof;
  element("proof").textContent = proven ? `${proven.groups} groups with ${proven.channels} channels in all, each proven on` +
    " this model before the search: the compacted network equals the one whose dropped channels are zeroed." : "";
  const known = page.groups || groups.map((name) => ({ name, size: page.sizes[name], members: [], proof: null }));
  const proofs = known.some((group) => group.proof);
  const kept = (name) => {
    const widths = pareto.front.map((row) => row.widths[name]);
    return widths.length ? `${Math.min(...widths)} to ${Math.max(...widths)}` : "";
  };
  fill("groups", "", ["group", "channels", "kept in the front", "at least", "multiple of",
    ...(proofs ? ["compact = masked", "effect"] : []), "lives in"],
    known.map((group) => [group.name, group.size, kept(group.name), group.min_keep, group.multiple_of,
      ...(proofs ? [group.proof?.error.toExponential(0), group.proof?.effect.toFixed(2)] : []),
      group.members.slice(0, 4).join(", ") + (group.members.length > 4 ? ` and ${group.members.length - 4} more` : "")]),
    [proofs ? 7 : 5]);
  fill("frozen", "Frozen", ["channels of", "channels", "why"],
    (proven ? proven.frozen : []).map((part) => [part.name, part.size, part.reason]), [2]);
}

function choose(trial) {
  const row = find(trial);
  if (!row) return;
  state.trial = trial;
  const box = element("choice");
  if (![...box.options].some((option) => Number(option.value) === trial)) add(box, "option", `trial ${trial}`).value = trial;
  box.value = trial;
  const list = element("plan");
  list.replaceChildren();
  const entries = { ...Object.fromEntries(page.heads.map((head, i) => [head, row.cells[i]])),
    "test accuracy": row.test_distilled ? `${accuracyText(row.test_distilled)} %, ${page.made}` : `not ${page.made} to the end yet`,
    "tied with": row.tied && row.tied.length ? `trial ${row.tied.join(", ")}` : "",
    front: row.knee ? "its knee" : "knee" in row ? "a member" : "dominated",
    widths: groups.map((group, i) => `${group} ${widthsOf(row)[i]}/${page.sizes[group]}`).join(", ") };
  for (const [name, value] of Object.entries(entries)) if (value) { add(list, "dt", name); add(list, "dd", value); }
  element("plan-command").textContent = `${page.commands.finetune} ${trial}`;
  document.querySelectorAll("#members tbody tr").forEach((line, i) =>
    line.classList.toggle("chosen", pareto.front[i].trial === trial));
  if (window.Plotly) { drawFront(); drawWidths(); }
}

function fillTexts() {
  const folder = page.run.split("/").at(-1) || page.run;
  element("title").textContent = folder;
  element("summary").textContent = `${pareto.strategy}, seed ${pareto.seed}: ${pareto.trials} trials,` +
    ` ${pareto.failed} failed, ${pareto.repeated} repeated; ${pareto.front.length} in the front;` +
    ` hypervolume ${pareto.hypervolume.toFixed(4)}; run ${page.run}` +
    (pareto.certificate ? `; ${pareto.certificate.text}` : "");
  element("volume-note").textContent = `Share of the box from 0 to the base network's ${page.axis.label} and a loss of` +
    ` ${page.reference.loss.toFixed(3)} that the front dominates, over evaluations on the whole search split.`;
  for (const finals of pareto.finals) for (const line of finals.text) add(element("finals"), "p", line);
  element("commands").textContent = ["front", "within", "export", "resume"].map((name) => page.commands[name]).filter(Boolean).join("\n");
  element("config").textContent = page.config || "";
  const box = element("choice");
  for (const row of pareto.front) add(box, "option", `trial ${row.trial}${row.knee ? " (knee)" : ""}`).value = row.trial;
  box.addEventListener("change", () => choose(Number(box.value)));
}

function drawAll() {
  return Promise.all([drawFront(), drawWidths(), drawKept(),
    drawConvergence("evaluation-chart", "evaluations", "full evaluations"),
    drawConvergence("time-chart", "seconds", "seconds of measuring")]);
}

(async () => {
  fillTexts();
  fillTables();
  choose(state.trial);
  await loadPlotly();
  await drawAll();
  element("front-chart").on("plotly_click", (event) => {
    const clicked = event.points.find((point) => point.customdata !== undefined);
    if (clicked) choose(clicked.customdata);
  });
  element("axis").addEventListener("change", drawFront);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  document.documentElement.dataset.ready = Math.round(performance.now());
})();
