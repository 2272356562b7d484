"use strict";
// What every page has: its data, elements, tables and charts.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const percent = (after, before) => `${after >= before ? "+" : ""}${((after / before - 1) * 100).toFixed(0)}%`;
const drawn = []; // functions that draw every chart anew, in other colours

function chart(id, make) {
  const draw = () => {
    const { traces, layout } = make();
    $(id).style.height = `${layout.height}px`; // else a chart that was made for another window sticks out of its place
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--soft"), automargin: true };
    Plotly.react(id, traces, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 12 },
      margin: { l: 10, r: 10, t: 30, b: 40 }, legend: { orientation: "h", y: 1.15 },
      ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
    }, { responsive: true, displaylogo: false, displayModeBar: false });
  };
  drawn.push(draw);
  draw();
  return draw;
}

function table(id, head, rows) {
  const cell = (tag, content, numeric) => {
    const made = element(tag, { className: numeric ? "number" : "" });
    made.append(content);
    return made;
  };
  const header = element("tr", {}, ...head.map(([text, numeric]) => cell("th", text, numeric)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((content, at) => cell("td", content, head[at][1]))));
  $(id).replaceChildren(element("thead", {}, header), element("tbody", {}, ...body));
}

dark.addEventListener("change", () => drawn.forEach((draw) => draw()));
