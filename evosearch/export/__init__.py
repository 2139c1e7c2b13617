"""Export: compact networks on disk, and in files for other runtimes.

A new format is a row in `formats`; `README.md` has the steps.

=============  =============================================================================
`artifact`     a compact network on disk: plan, weights and card
`card`         the card of an artifact, as JSON and in Markdown
`hubcard`      what model hubs ask of a card: metadata, what was pruned, how it is loaded
`rebuild`      the loader of an artifact, which is copied beside it and needs no evosearch
`builder`      the builder of an artifact's network, and whose code may run
`reloading`    a saved network loaded in a fresh process, and compared
`formats`      export formats (ONNX, `.pt2`)
`checking`     the check of an exported file in a fresh process
`onnxfile`     an ONNX file: its layers by module, and the network that it is
`quantizing`   static quantization of an ONNX file to int8
`layerlosses`  the layers that lose accuracy in int8
`quantized`    the section of a card on an int8 file
=============  =============================================================================
"""
