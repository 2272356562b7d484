// The page of a study: filters, curves with hover, and how much sooner at which gap.

const { runs, ratios } = data;
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"]; // for all eyes
const DASHES = ["2 0", "1 3", "6 4", "12 4", "8 3 1 3"].map((lengths) => lengths.replaceAll(/\d+/g, "$&px"));
const distinct = (values) => [...new Set(values)];
const recipes = distinct(runs.map((run) => run.recipe)), families = distinct(runs.map((run) => run.model));
const seeds = distinct(runs.map((run) => run.seed));
const PLAIN = { random: "--ink", base: "--soft", continued: "--soft" };
const others = recipes.filter((name) => !(name in PLAIN));
const shade = (recipe) => recipe in PLAIN ? colour(PLAIN[recipe]) : PALETTE[others.indexOf(recipe) % PALETTE.length];
const dash = (model) => DASHES[families.indexOf(model) % DASHES.length];

// The filters are the legend, too: a piece of line stands beside what it is drawn for.
function sample(stroke, dashes) {
  const span = element("span");
  span.innerHTML = `<svg width="24" height="8" aria-hidden="true"><line x1="0" x2="24" y1="4" y2="4" stroke-width="2" stroke-dasharray="${dashes.replaceAll("px", "")}" style="stroke: ${stroke}"/></svg>`;
  return span;
}

function boxes(id, names, look) {
  const made = names.map((name) => element("input", { type: "checkbox", checked: true, value: name }));
  $(id).append(...made.map((box) => element("label", { className: "check" }, box, " ", look ? look(box.value) : "", ` ${box.value}`)));
  made.forEach((box) => box.addEventListener("change", show));
  return () => new Set(made.filter((box) => box.checked).map((box) => box.value));
}
const chosen = {
  model: boxes("families", families, (name) => families.length > 1 ? sample("var(--ink)", dash(name)) : ""),
  recipe: boxes("recipes", recipes, (name) => sample(name in PLAIN ? `var(${PLAIN[name]})` : shade(name), DASHES[0])),
  seed: boxes("seeds", seeds),
};
const shown = (items) => {
  const sets = Object.entries(chosen).map(([key, values]) => [key, values()]);
  return items.filter((item) => sets.every(([key, values]) => values.has(String(item[key]))));
};

const lines = (items, trace) => items.map((item) => ({
  type: "scatter", showlegend: false, line: { color: shade(item.recipe), dash: dash(item.model), width: 1.5 },
  marker: { color: shade(item.recipe), size: 6 }, ...trace(item),
}));

const MEASURES = { loss: "validation loss, nats per token", accuracy: "accuracy of the next token", swap: "swap cosine", rank: "effective rank over full rank" };
const place = (run, step, axis) => axis === "steps" ? step : step * run.compute_per_step + run.base_compute;
const axisOf = (select) => ({ title: { text: select.selectedOptions[0].textContent }, tickformat: "~s" });

const drawRatio = chart("ratio", () => {
  const traces = lines(shown(ratios), (line) => ({
    mode: "lines", x: line.points.map(([gap]) => gap), y: line.points.map(([, ratio]) => ratio),
    hovertemplate: `${line.title}, ${line.recipe}, seed ${line.seed}<br>gap %{x:.3f}: %{y:.2f} times as soon<extra></extra>`,
  }));
  const level = (value) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: colour("--soft"), width: 1, dash: "dot" } });
  return { traces, layout: { height: 420, shapes: data.paper.map(level), xaxis: { title: { text: "gap below the base, nats per token" }, rangemode: "tozero" }, yaxis: { title: { text: "times as soon" }, rangemode: "tozero" } } };
});

const drawEnds = chart("ends", () => {
  const ended = shown(runs).filter((run) => run.finished && run.kind !== "base");
  const keyOf = (run) => JSON.stringify([run.model, run.factor, run.base, run.recipe, run.rate, run.seed]);
  const groups = distinct(ended.map(keyOf)).map((key) => ended.filter((run) => keyOf(run) === key).sort((a, b) => a.steps - b.steps));
  const traces = lines(groups.map((group) => ({ ...group[0], group })), ({ group }) => ({
    mode: "lines+markers", x: group.map((run) => place(run, run.steps, $("budget").value)), y: group.map((run) => run.last),
    text: group.map((run) => `${run.name}<br>${number(run.steps)} steps at ${run.rate}: ${run.last.toFixed(4)}`), hovertemplate: "%{text}<extra></extra>",
  }));
  return { traces, layout: { height: 420, xaxis: { type: "log", dtick: "D2", ...axisOf($("budget")) }, yaxis: { title: { text: "last loss" } } } };
});

const drawRuns = chart("run-chart", () => {
  const measure = $("measure").value, axis = $("against").value;
  const traces = lines(shown(runs), (run) => ({
    mode: "lines", x: run.steps_at.map((step) => place(run, step, axis)), y: run[measure],
    text: run.steps_at.map((step) => number(step)), hovertemplate: `${run.name}<br>step %{text}: %{y:.4f}<extra></extra>`,
  }));
  const low = Math.min(...shown(runs).map((run) => run.last ?? Infinity));
  const range = measure === "loss" && Number.isFinite(low) ? { range: [low - 0.05, low + 1.2] } : {};
  return { traces, layout: { height: 460, xaxis: axisOf($("against")), yaxis: { title: { text: MEASURES[measure] }, ...range } } };
});

function showRuns() {
  const head = [["run"], ["family"], ["recipe"], ["growth", true], ["steps", true], ["rate", true], ["parameters", true], ["last loss", true]];
  table("runs", head, shown(runs).map((run) => [
    element("code", { textContent: run.name }), run.model, run.recipe, `${run.factor}×`, number(run.steps), String(run.rate), number(run.parameters),
    run.finished ? run.last.toFixed(4) : `${Math.round(100 * run.done)}% done`,
  ]));
}

function show() {
  [drawRatio, drawEnds, drawRuns].forEach((draw) => draw());
  showRuns();
}

$("ratio").closest("section").hidden = !ratios.length;
$("ends").closest("section").hidden = distinct(runs.filter((run) => run.kind === "wide").map((run) => run.steps)).length < 2;
for (const [name, text] of Object.entries(MEASURES)) {
  if (runs.some((run) => run[name].some((value) => value !== null))) $("measure").append(element("option", { value: name, textContent: text }));
}
for (const [id, draw] of [["budget", drawEnds], ["measure", drawRuns], ["against", drawRuns]]) $(id).addEventListener("change", draw);
$("summary").textContent = `${number(runs.length)} runs, ${number(runs.filter((run) => run.finished).length)} of them finished. ${data.commands.join("; ")}`;
$("footer").textContent = `Made by graphclone ${data.version}. This file needs no network. Corpus ${data.corpora.join(", ")}.`;
show();
