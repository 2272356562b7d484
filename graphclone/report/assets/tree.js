// The model as rows: bands to the left, modules and operations to the right. Modules are filled when they are opened.

// Colours go round in steps of the golden angle, so that dims next to each other never look alike.
const hue = (dim) => Math.round(210 + dim * 137.508) % 360;
function coloured(node, dim) {
  node.style.setProperty("--colour", `hsl(${hue(dim)} 65% var(--hue-light))`);
  node.style.setProperty("--wash", `hsl(${hue(dim)} 45% var(--hue-wash))`);
  return node;
}

const isPart = (item) => item.items !== undefined;
const tensorsOf = (operation) => [...operation.outputs, ...operation.reads];
const leavesOf = (tensor) => tensor.axes.flatMap((axis) => axis.leaves);
const dimsOfTensor = (tensor) => leavesOf(tensor).map((leaf) => leaf.dim).filter((dim) => dim >= 0);

function dimsOf(item) {
  if (item.dims === undefined) {
    const found = isPart(item) ? item.items.flatMap((inner) => [...dimsOf(inner)]) : tensorsOf(item).flatMap(dimsOfTensor);
    item.dims = new Set(found);
  }
  return item.dims;
}

const bands = [];
data.dims.forEach((dim, index) => { if (dim.last >= dim.first) (bands[dim.lane] ??= []).push({ ...dim, index }); });

function lanesFor(item, dims) {
  const place = item.place, end = item.end ?? item.place;
  const lanes = element("span", { className: "lanes" });
  for (const lane of bands) {
    const here = (lane ?? []).filter((dim) => dim.first <= end && dim.last >= place);
    const band = here.find((dim) => dims.has(dim.index)) ?? here.find((dim) => dim.first <= place && dim.last >= end);
    if (!band) { lanes.append(element("span", { className: "lane" })); continue; }
    const cell = element("button", { className: "lane" + (dims.has(band.index) ? " on" : ""), tabIndex: -1, title: band.name }, element("i"));
    cell.dataset.dim = band.index;
    cell.setAttribute("aria-hidden", "true");
    lanes.append(coloured(cell, band.index));
  }
  return lanes;
}

const short = (op) => op.replace(/^aten\./, "").replace(/\.(default|Tensor|int|dtype|Scalar|self|dim)$/, "");

function chip(axis) {
  const known = axis.leaves.filter((leaf) => leaf.dim >= 0);
  if (!known.length) return element("span", { className: "plain", textContent: axis.text });
  const span = element("span", { className: "shape" });
  const single = axis.leaves.length === 1;
  known.filter((leaf, at) => known.findIndex((other) => other.dim === leaf.dim) === at).forEach((leaf) => {
    const dim = data.dims[leaf.dim];
    const size = leaf.new_size === leaf.size ? leaf.size : `${leaf.size}→${leaf.new_size}`;
    const button = element("button", { className: "chip" + (dim.pinned ? " pinned" : ""), type: "button", textContent: `${dim.short} ${size}` });
    button.dataset.dim = leaf.dim;
    button.dataset.hint = single ? axis.text : `${axis.text} · ${dim.name}`;
    span.append(coloured(button, leaf.dim));
  });
  if (!single) span.append(element("span", { className: "plain", textContent: axis.text.split("=").pop() }));
  return span;
}

function shape(tensor) {
  const span = element("span", { className: "shape" }, "[");
  tensor.axes.forEach((axis, at) => span.append(at ? ", " : "", chip(axis)));
  span.append("]");
  return span;
}

const layoutText = (tensor) => `${tensor.name}: ${tensor.dtype}[${tensor.axes.map((axis) => axis.text).join(", ")}]`;
function hintOf(tensor) {
  const scale = tensor.scale === 1 ? "" : ` · scale ${+tensor.scale.toPrecision(6)}`;
  const contracted = tensor.contracted.length ? ` · contracted over axis ${tensor.contracted.join(", ")}` : "";
  return `${tensor.kind} ${layoutText(tensor)}${contracted}${scale}`;
}

function row(item, depth, className, dims, ...content) {
  const text = element("div", { className: "text" }, ...content);
  text.style.setProperty("--depth", depth);
  const made = element("div", { className: `row ${className}` }, lanesFor(item, dims), text);
  made.dataset.dims = [...dims].join(" ");
  return made;
}

const openers = new Map(); // part, operation or initializer -> function that opens it and gives its first row

function operationRows(operation, depth) {
  const label = element("span", { className: "op", tabIndex: 0, textContent: short(operation.op) });
  const rule = operation.rule ? ` · rule: ${operation.rule}` : "";
  const shares = operation.shares.length ? ` · also reads ${operation.shares.join(", ")}` : "";
  label.dataset.hint = `${operation.name} = ${operation.op}${rule}${shares} · ${operation.outputs.map(hintOf).join("; ")}`;
  const name = operation.op === "input" ? element("code", { textContent: operation.name }) : "";
  const dims = new Set(operation.outputs.flatMap(dimsOfTensor));
  const rows = [row(operation, depth, "operation", dims, label, name, ...operation.outputs.map(shape))];
  for (const tensor of operation.reads) {
    const label = element("code", { tabIndex: 0, textContent: tensor.name.split(".").slice(-2).join(".") });
    label.dataset.hint = hintOf(tensor);
    const made = row(operation, depth + 1, "weight", new Set(dimsOfTensor(tensor)), label, shape(tensor));
    openers.set(tensor, () => made);
    rows.push(made);
  }
  rows[0].dataset.name = operation.name;
  if (operation.op !== "input" && !dimsOf(operation).size) rows.forEach((made) => made.classList.add("bare"));
  return rows;
}

function partRows(part, depth, container) {
  const count = part.twins.length + 1;
  const last = part.twins.length ? part.twins[part.twins.length - 1].name : "";
  const toggle = element("button", { type: "button", className: "toggle", textContent: last ? `${part.name} to ${last}` : part.name || data.model });
  const times = count > 1 ? element("span", { className: "times", textContent: `× ${count}` }) : "";
  const isNew = part.is_new ? element("span", { className: "times", textContent: "new" }) : "";
  const apart = count > 1 ? element("button", { type: "button", className: "more", textContent: "unfold" }) : "";
  const made = row(part, depth, "part", dimsOf(part), toggle, times, isNew, apart);
  made.dataset.name = part.path;
  const inside = element("div", { hidden: true });
  let filled = false;
  const open = (wanted = true) => {
    if (wanted && !filled) { filled = true; fill(inside, part.items, depth + 1); }
    inside.hidden = !wanted;
    toggle.setAttribute("aria-expanded", wanted);
    refresh();
    return made;
  };
  toggle.setAttribute("aria-expanded", "false");
  toggle.addEventListener("click", () => open(inside.hidden));
  openers.set(part, open);
  container.append(made, inside);
  if (!apart) return;
  const twins = element("div", { hidden: true });
  let unfolded = false;
  const unfold = (wanted = true) => {
    if (wanted && !unfolded) { unfolded = true; fill(twins, part.twins.map((twin) => ({ ...twin, twins: [] })), depth, part.twins); }
    twins.hidden = !wanted;
    toggle.textContent = wanted ? part.name : `${part.name} to ${last}`;
    times.hidden = wanted;
    apart.textContent = wanted ? `fold ${count} into one` : "unfold";
    refresh();
  };
  apart.addEventListener("click", () => unfold(twins.hidden));
  part.unfold = unfold;
  container.append(twins);
}

function fill(container, items, depth, originals = items) {
  items.forEach((item, at) => {
    if (isPart(item)) { partRows(item, depth, container); openers.set(originals[at], openers.get(item)); return; }
    const rows = operationRows(item, depth);
    openers.set(item, () => rows[0]);
    container.append(...rows);
  });
}

// Selecting a dim

let selected = -1;
function refresh() {
  document.body.classList.toggle("selecting", selected >= 0);
  const wanted = String(selected);
  for (const made of document.querySelectorAll(".row")) made.classList.toggle("lit", made.dataset.dims.split(" ").includes(wanted));
  for (const made of document.querySelectorAll("[data-dim]")) {
    made.classList.toggle("lit", made.dataset.dim === wanted);
    if (made.tabIndex >= 0) made.setAttribute("aria-pressed", made.dataset.dim === wanted);
  }
  const bare = !$("all").checked;
  for (const made of document.querySelectorAll(".bare")) made.hidden = bare;
}

function list(tag, lines) {
  return element(tag, {}, ...lines.map((line) => element("li", { textContent: line })));
}

function select(dim) {
  selected = dim === selected ? -1 : dim; // a second click clears it
  const detail = $("detail");
  detail.replaceChildren();
  detail.classList.toggle("empty", selected < 0);
  if (selected < 0) {
    detail.append(element("p", { textContent: "Click a dim, or its band, to see everything that it touches and what pins it." }));
  } else {
    const group = data.dims[selected];
    const sizes = group.new_sizes.every((size) => size === group.size) ? group.size : `${group.size} → ${group.new_sizes.join(", ")}`;
    const close = element("button", { type: "button", className: "close", textContent: "clear (Esc)" });
    close.addEventListener("click", () => select(selected));
    detail.append(
      coloured(element("h3", {}, element("span", { className: "swatch" }), group.name), selected),
      element("p", { textContent: `${sizes}${group.count > 1 ? `, in ${group.count} layers` : ""}. ${growthText(group)}` }),
    );
    if (group.pinned) {
      detail.append(element("p", { textContent: `Pinned: ${group.pinned}.` }));
      if (group.freed_by.length) detail.append(element("p", { textContent: `It can grow if these grow as well: ${group.freed_by.join(", ")}.` }));
      if (group.path.length) detail.append(element("p", { textContent: `From the pin to ${group.parameters[0]}:` }), list("ol", group.path));
    }
    detail.append(element("p", { textContent: group.count > 1 ? "The first of them is in:" : "It is in:" }), list("ul", group.parameters), close);
  }
  refresh();
}

function growthText(group) {
  if (group.pinned) return "It keeps its size.";
  return group.default ? "It grows by default." : "It grows when it is asked for by name.";
}

// Searching

function* everything(item, above) {
  const here = [...above, item];
  if (isPart(item)) {
    if (item.path) yield { kind: "module", name: item.path, way: here };
    for (const inner of item.items) yield* everything(inner, here);
    for (const twin of item.twins) yield* everything(twin, [...above, item]);
  } else {
    yield { kind: item.op === "input" ? "input" : "operation", name: item.name, way: here };
    for (const tensor of item.reads) yield { kind: tensor.kind, name: tensor.name, way: [...here, tensor] };
  }
}

const index = [...data.dims.map((dim, at) => ({ kind: "dim", name: dim.name, dim: at })), ...everything(data.tree, [])];
const MOST = 60;

function search(text) {
  const found = $("found");
  found.replaceChildren();
  const wanted = text.trim().toLowerCase();
  if (!wanted) return;
  const hits = index.filter((entry) => entry.name.toLowerCase().includes(wanted));
  found.append(element("p", { className: "kind", textContent: hits.length > MOST ? `${number(hits.length)} found, the first ${MOST}:` : `${hits.length} found` }));
  for (const entry of hits.slice(0, MOST)) {
    const button = element("button", { type: "button" }, element("span", { className: "kind", textContent: `${entry.kind} ` }), entry.name);
    button.addEventListener("click", () => (entry.dim === undefined ? reveal(entry) : (selected = -1, select(entry.dim))));
    found.append(button);
  }
}

function reveal(entry) {
  let made = null;
  entry.way.forEach((step, at) => {
    if (isPart(step) && step.twins.includes(entry.way[at + 1])) step.unfold();
    else made = openers.get(step)();
  });
  if (made.hidden) { $("all").checked = true; refresh(); }
  document.querySelectorAll(".row.found").forEach((old) => old.classList.remove("found"));
  made.classList.add("found");
  made.scrollIntoView({ block: "center" });
  made.querySelector("button:not(.lane), [tabindex='0']")?.focus({ preventScroll: true });
}
