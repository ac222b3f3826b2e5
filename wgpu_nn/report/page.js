// Shows the values under the pointer: of each line of a chart, those nearest to where it is. Keys move from point to point.
"use strict";
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const chart = JSON.parse(svg.dataset.chart);
  const figure = svg.parentElement;
  const tip = figure.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.appendChild(cursor);
  const all = [...new Set(chart.lines.flatMap((line) => line.px))].sort((a, b) => a - b);
  const nearest = (xs, x) => xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? i : best), 0);
  let at = 0;

  function show(px) {
    at = nearest(all, px);
    px = all[at];
    const reach = all.length > 1 ? Math.max(3, (all[all.length - 1] - all[0]) / all.length) : 3;
    const rows = [];
    let x = null;
    for (const line of chart.lines) {
      const i = nearest(line.px, px);
      if (line.px.length && Math.abs(line.px[i] - px) <= reach) {
        x = x ?? line.x[i];
        rows.push([line, line.y[i]]);
      }
    }
    tip.replaceChildren();
    const head = tip.appendChild(document.createElement("div"));
    head.textContent = `${chart.x} ${x}`;
    for (const [line, y] of rows) {
      const row = tip.appendChild(document.createElement("div"));
      row.appendChild(document.createElement("i")).style.background = `var(--c${line.colour})`;
      row.append(`${line.label} ${y}`);
    }
    cursor.setAttribute("d", `M${px} ${chart.top}V${chart.bottom}`);
    cursor.style.display = "";
    tip.hidden = false;
    const box = svg.getBoundingClientRect();
    const left = (px / svg.viewBox.baseVal.width) * box.width + 12;
    tip.style.left = `${left + tip.offsetWidth > box.width ? Math.max(0, left - 24 - tip.offsetWidth) : left}px`;
    tip.style.top = `${box.top - figure.getBoundingClientRect().top + 8}px`;
  }

  function hide() {
    tip.hidden = true;
    cursor.style.display = "none";
  }

  svg.tabIndex = 0;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show(((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && all.length) {
      event.preventDefault();
      show(all[Math.min(Math.max(at + step, 0), all.length - 1)]);
    }
  });
}
