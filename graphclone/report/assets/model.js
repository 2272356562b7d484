// The rest of the page: facts, tables and charts.

function facts(pairs) {
  return element("dl", {}, ...pairs.flatMap(([term, text]) => [element("dt", { textContent: term }), element("dd", {}, text)]));
}

// Summary, and the table of dims

const clone = data.clone;
const sum = (counts) => counts.reduce((total, count) => total + count, 0);
const doubled = data.choices[0].costs.find((cost) => cost.factor === 2);
$("summary").textContent = `${number(data.nodes)} operations, ${number(data.parameters)} parameters. ` + (clone
  ? `The clone has ${number(sum(clone.after))} parameters (${(sum(clone.after) / data.parameters).toFixed(2)} times).`
  : doubled.parameters.length ? `Twice as wide it has ${number(sum(doubled.parameters))} (${(sum(doubled.parameters) / data.parameters).toFixed(2)} times).` : doubled.refusal);

function dimButton(at) {
  const button = element("button", { type: "button" }, element("span", { className: "swatch" }), data.dims[at].name);
  button.dataset.dim = at;
  return coloured(button, at);
}

const grows = (dim) => dim.pinned ? `pinned: ${dim.pinned}` : dim.default ? "by default" : "when named";
const head = [["dim"], ["size", true], ...(clone ? [["new size", true]] : []), ["dims", true], ["grows"], ["parameters if doubled alone", true]];
function showDims() {
  const rows = data.dims.map((dim, at) => [dim, at]).filter(([dim]) => dim.matters || $("never").checked);
  table("dims", head, rows.map(([dim, at]) => [
    dimButton(at), number(dim.size), ...(clone ? [dim.new_sizes.map(number).join(", ")] : []), number(dim.count),
    element("span", { className: dim.pinned ? "no" : "yes", textContent: grows(dim) }),
    dim.doubled === null ? "" : `${number(dim.doubled)} (${percent(dim.doubled, sum(data.choices[0].costs[0].parameters))})`,
  ]));
}
$("never").addEventListener("change", () => { showDims(); refresh(); });
showDims();
if (data.refusals.length) {
  $("refusals").append(element("h3", { textContent: "In the way" }), list("ul", data.refusals.map(([node, op, reason]) => `${node} (${op}): ${reason}`)));
}

// What it costs

const what = $("what"), factor = $("factor");
const choices = clone ? [{ name: "this clone", costs: [{ factor: null, parameters: clone.after }] }, ...data.choices] : data.choices;
choices.forEach((choice, at) => what.append(element("option", { value: at, textContent: choice.name || "all that grows by default" })));
function offerFactors() {
  const { costs } = choices[what.value];
  Object.assign(factor, { min: 0, max: costs.length - 1, step: 1, disabled: costs.length === 1 });
  factor.value = Math.max(costs.findIndex((cost) => cost.factor === 2), 0);
}
offerFactors();
const costNow = () => choices[what.value].costs[factor.value];
const barParts = () => {
  const cost = costNow(), before = cost.factor === null ? clone.before : data.choices[0].costs[0].parameters;
  return { names: data.parts, before, after: cost.parameters.length ? cost.parameters : null, cost };
};
const drawBars = chart("bars", () => {
  const { names, before, after } = barParts();
  const bar = (name, x, shade) => ({ type: "bar", orientation: "h", name, y: names, x, marker: { color: shade }, hovertemplate: "%{y}: %{x:,}<extra>%{fullData.name}</extra>" });
  const traces = [bar("before", before, colour("--soft"))];
  if (after) traces.push(bar("after", after, colour("--accent")));
  return { traces, layout: { height: 120 + 34 * names.length, barmode: "group", xaxis: { title: { text: "parameters" }, rangemode: "tozero" }, yaxis: { autorange: "reversed" } } };
});
function cost() {
  const { names, before, after, cost } = barParts();
  const times = cost.factor === null ? "" : `×${cost.factor}: `;
  $("count").textContent = after ? `${times}${number(sum(after))} parameters (${(sum(after) / sum(before)).toFixed(2)} times)` : `${times}cannot be had: ${cost.refusal}`;
  factor.setAttribute("aria-valuetext", $("count").textContent);
  table("bars-table", [["part"], ["before", true], ["after", true]], names.map((name, at) => [name, number(before[at]), after ? number(after[at]) : ""]));
  drawBars();
}
what.addEventListener("change", () => { offerFactors(); cost(); });
factor.addEventListener("input", cost);
cost();

// The clone

function heatMap(id, title, rows, range, edges) {
  const [across, down] = edges;
  const line = (at, size, vertical) => vertical
    ? { type: "line", x0: at - .5, x1: at - .5, y0: -.5, y1: size - .5, line: { color: colour("--ink"), width: 1.5 } }
    : { type: "line", y0: at - .5, y1: at - .5, x0: -.5, x1: size - .5, line: { color: colour("--ink"), width: 1.5 } };
  return {
    traces: [{ type: "heatmap", z: rows, zmid: 0, zmin: -range, zmax: range, colorscale: "RdBu", hovertemplate: "row %{y}, column %{x}: %{z}<extra></extra>", colorbar: { thickness: 10 } }],
    layout: {
      title: { text: title, font: { size: 13 } }, height: 420, yaxis: { autorange: "reversed", scaleanchor: "x", constrain: "domain" }, xaxis: { constrain: "domain" },
      shapes: [...across.map((at) => line(at, rows[0].length, false)), ...down.map((at) => line(at, rows.length, true))],
    },
  };
}

function showClone() {
  $("clone").hidden = false;
  const config = Object.entries(clone.config).map(([name, [old, now]]) => `${name}: ${JSON.stringify(old)} → ${JSON.stringify(now)}`);
  $("clone-facts").append(facts([
    ["command", element("code", { textContent: clone.command })],
    ["strategy", clone.strategy], ["seed", String(clone.seed)],
    ["parameters", `${number(sum(clone.before))} → ${number(sum(clone.after))}`],
    ...(config.length ? [["configuration", list("ul", config)]] : []),
  ]));
  if (clone.heats.length) showWeights();
  showChecks();
}

function showWeights() {
  $("weights").hidden = false;
  const weight = $("weight");
  clone.heats.forEach((heat, at) => weight.append(element("option", { value: at, textContent: heat.name })));
  const heat = () => clone.heats[weight.value];
  const range = (rows) => Math.max(...rows.flat().map(Math.abs), Number.MIN_VALUE);
  const draws = [
    chart("before", () => heatMap("before", "before", heat().before, range(heat().before), [[], []])),
    chart("after", () => heatMap("after", "after", heat().after, range(heat().after), [heat().row_edges, heat().column_edges])),
  ];
  const show = () => {
    const { shape, new_shape, whole, before } = heat();
    const part = whole ? "All of it is drawn." : `Drawn are the first ${before.length} × ${before[0].length} indices of the source, and the copies of these in the clone.`;
    $("weight-text").textContent = `${shape.join(" × ")} becomes ${new_shape.join(" × ")}. ${part} Lines part the copies; each side has its own range of colours.`;
    draws.forEach((draw) => draw());
  };
  weight.addEventListener("change", show);
  show();
}

function showChecks() {
  $("checks").hidden = false;
  const report = clone.verification;
  if (!report) { $("verdict").textContent = "The clone was not verified."; return; }
  $("verdict").append(element("strong", { className: report.ok ? "ok" : "wrong", textContent: report.verdict }), report.provider ? `. ONNX Runtime ran on ${report.provider}.` : ".");
  const sign = (ok) => ok === null ? ["not made", "no"] : ok ? ["ok", "ok"] : ["wrong", "wrong"];
  table("check-table", [["check"], ["result"], ["what was measured"]], report.checks.map((check) => [
    check.name, element("span", { className: sign(check.ok)[1], textContent: sign(check.ok)[0] }), check.summary,
  ]));
  $("inputs").textContent = report.inputs.length ? `On ${report.inputs.join("; ")}` : "";
  const values = report.checks.flatMap((check) => check.values ?? []);
  const outputs = report.checks.flatMap((check) => check.outputs.map((output) => ({ check: check.name, ...output })));
  const FLOOR = 2 ** -53; // errors of 0 are drawn at half a unit in the last place of float64
  $("errors").hidden = !values.length;
  if (values.length) chart("errors", () => {
    const y = values.map(([, error]) => Math.max(Number(error), FLOOR));
    const at = (value, text, dash) => ({ type: "scatter", mode: "lines", name: text, x: [0, values.length - 1], y: [value, value], line: { color: colour("--bad"), width: 1, dash }, hoverinfo: "skip" });
    return {
      traces: [
        { type: "scatter", mode: "markers+lines", name: "relative error in float64", x: values.map((_, place) => place), y, text: values.map(([name, error]) => `${name}: ${error === 0 ? "0" : Number(error).toExponential(1)}`), hovertemplate: "%{text}<extra></extra>", marker: { size: 5, color: colour("--accent") }, line: { width: 1, color: colour("--accent") } },
        at(clone.tolerance, `allowed: ${clone.tolerance.toExponential(0)}`, "dash"), at(FLOOR, "half a unit in the last place", "dot"),
      ],
      layout: { height: 340, xaxis: { title: { text: "value, in graph order" } }, yaxis: { type: "log", exponentformat: "power", title: { text: "relative error" } } },
    };
  });
  $("outputs").hidden = !outputs.length;
  if (outputs.length) chart("outputs", () => {
    const names = outputs.map((output) => `${output.check}: ${output.value}`);
    const bar = (name, key, shade) => ({ type: "bar", orientation: "h", name, y: names, x: outputs.map((output) => Number(output[key])), marker: { color: shade }, hovertemplate: "%{y}: %{x:.2e}<extra>%{fullData.name}</extra>" });
    return {
      traces: [bar("the source's own error", "source", colour("--soft")), bar("the clone's error", "clone", colour("--accent"))],
      layout: { height: 130 + 44 * names.length, barmode: "group", xaxis: { title: { text: "greatest absolute error, against the source in float64" }, exponentformat: "power" }, yaxis: { autorange: "reversed" } },
    };
  });
}

if (clone) showClone();
if (data.notes.length) { $("notes").hidden = false; data.notes.forEach((note) => $("note-list").append(element("li", { textContent: note }))); }
$("footer").textContent = `Made by graphclone ${data.version}. This file needs no network.`;

// The tree, and what people do with it

const ROWS = 45; // so many are shown at first
partRows(data.tree, 0, $("tree"));
const queue = [data.tree];
let shown = 1;
while (queue.length && shown < ROWS) {
  const part = queue.shift();
  if (shown > 1 && shown + part.items.length > 2 * ROWS) continue;
  openers.get(part)();
  shown += part.items.filter((item) => isPart(item) || dimsOf(item).size).length;
  queue.push(...part.items.filter(isPart));
}
select(-1);
document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-dim]");
  if (target) select(Number(target.dataset.dim));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected >= 0) select(selected);
});
const hint = (event) => {
  const target = event.target.closest?.("[data-hint]");
  if (target) $("hint").textContent = target.dataset.hint;
};
document.addEventListener("mouseover", hint);
document.addEventListener("focusin", hint);
$("hint").textContent = "Point at a shape, an operation or a parameter to read its layout, its rule and its scale.";
$("search").addEventListener("input", (event) => search(event.target.value));
$("search").addEventListener("keydown", (event) => { if (event.key === "Enter") $("found").querySelector("button")?.click(); });
$("all").addEventListener("change", refresh);
