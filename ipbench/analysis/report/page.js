"use strict";
(() => {
  const contents = JSON.parse(document.getElementById("contents").textContent);
  const switches = [...document.querySelectorAll("#switches input")];
  const net = document.getElementById("net");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const shown = {};

  // What is switched off, by facet.
  function hidden() {
    const off = {};
    for (const box of switches) {
      off[box.dataset.facet] ??= new Set();
      if (!box.checked) off[box.dataset.facet].add(box.value);
    }
    return off;
  }

  // A row without a value of a facet is of all of them, and stays.
  function keeps(off, value) {
    return Object.entries(off).every(([facet, values]) => !values.has(value(facet)));
  }

  function colours() {
    const look = getComputedStyle(document.documentElement);
    const of = (name) => look.getPropertyValue(name).trim();
    const ink = of("--ink"), soft = of("--soft"), line = of("--line"), back = of("--back");
    return {
      background: null, font: "system-ui, sans-serif",
      view: { stroke: null },
      axis: { labelColor: ink, titleColor: ink, domainColor: soft, tickColor: soft, gridColor: line, titleFontWeight: 400,
        labelFontSize: 11, titleFontSize: 12 },
      header: { labelColor: ink }, legend: { labelColor: ink, titleColor: ink, labelLimit: 260, symbolStrokeWidth: 1.5 },
      mark: { color: ink }, rule: { color: ink }, text: { color: soft },
      range: {
        category: contents.colours[dark.matches ? "dark" : "light"],
        symbol: ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left"],
      },
      // Of the forest plot: filled, grey, empty.
      fills: [ink, dark.matches ? "#77777f" : "#b0b0b0", back],
    };
  }

  // A specification gets its size and colours here, for it does not know the screen.
  function sized(name, spec, width, config, rows) {
    const narrow = width < 640;
    if (name === "forest") {
      const names = Math.min(230, 7 * Math.max(8, ...rows.map((row) => row.name.length)));
      spec.layer = spec.layer.filter((layer) => !narrow || layer.name !== "numbers");
      spec.width = Math.max(80, width - names - (narrow ? 24 : 230));
      const order = [...new Set(rows.map((row) => row.name))];
      for (const layer of spec.layer) {
        if (layer.encoding.y) layer.encoding.y.scale = { domain: order };
        const fill = layer.encoding.fill;
        if (!fill) continue;
        fill.scale.range = config.fills;
        fill.legend = { orient: "top", symbolStrokeColor: config.mark.color, symbolType: "diamond", title: null };
      }
    } else {
      const panels = new Set(rows.map((row) => row.panel)).size;
      spec.columns = narrow ? 1 : Math.min(2, Math.max(1, panels));
      spec.spec.width = Math.max(120, Math.floor((width - 64) / spec.columns) - 14);
      const ticks = [...new Set(rows.map((row) => row.tick).filter((tick) => tick !== null))];
      // Colours stay with their methods, whatever is switched off.
      const all = contents.charts[name].rows.filter((row) => row.net === rows[0].net && row.kind !== "dense");
      const labels = [...new Set(all.map((row) => row.label))];
      const values = labels.filter((label) => rows.some((row) => row.label === label));
      const room = 7 * Math.min(38, Math.max(6, ...values.map((label) => label.length))) + 34;
      for (const layer of spec.spec.layer) {
        if (layer.encoding.x) { if (ticks.length) layer.encoding.x.axis.values = ticks; else delete layer.encoding.x.axis.values; }
        for (const channel of ["color", "shape"]) {
          if (!layer.encoding[channel]) continue;
          layer.encoding[channel].scale = { domain: labels };
          layer.encoding[channel].legend = { orient: "bottom", values, columns: Math.max(1, Math.floor(width / room)) };
        }
      }
    }
    spec.config = config;
    return spec;
  }

  async function draw(place) {
    const name = place.dataset.chart;
    const off = hidden();
    const rows = contents.charts[name].rows.filter(
      (row) => keeps(off, (facet) => row[facet]) && (!net || name !== "accuracy" || row.net === net.value));
    shown[name]?.finalize();
    place.dataset.rows = rows.length;
    if (!rows.length) { place.textContent = "Everything is switched off."; shown[name] = null; return; }
    const spec = sized(name, structuredClone(contents.charts[name].spec), place.clientWidth, colours(), rows);
    const { fills, ...config } = spec.config;
    spec.config = config;
    spec.datasets = { rows };
    const theme = dark.matches ? "dark" : "light";
    shown[name] = await vegaEmbed(place, spec, { actions: false, renderer: "svg", tooltip: { theme }, logLevel: 1 });
  }

  function tables() {
    const off = hidden();
    for (const row of document.querySelectorAll("tbody tr"))
      row.hidden = !keeps(off, (facet) => row.dataset[facet]);
    for (const table of document.querySelectorAll("table"))
      for (const space of ["SP", "IP"]) table.classList.toggle(`no-${space}`, off.space?.has(space) ?? false);
  }

  let waiting = Promise.resolve();
  function update() {
    tables();
    waiting = waiting.then(async () => {
      for (const place of document.querySelectorAll(".chart")) await draw(place);
      document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
    });
  }

  // The number a text begins with: "−2.18 [...]", "1.23 M", "3 min 20 s", "<0.001"; null of any other.
  const PREFIX = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, h: 3600, min: 60 };
  function number(text) {
    const found = /^[×<±]?([+−-]?[\d.,]+)(?: (k|M|G|T|P|h|min)(?![a-z]))?/.exec(text);
    if (!found) return null;
    return Number(found[1].replace("−", "-").replaceAll(",", "")) * (PREFIX[found[2]] ?? 1);
  }

  function sort(head) {
    const table = head.closest("table"), body = table.tBodies[0], at = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => {
      const text = row.cells[at]?.textContent ?? "";
      return { row, text, value: number(text) };
    });
    rows.sort((a, b) => {
      if ((a.value === null) !== (b.value === null)) return a.value === null ? 1 : -1;  // no number: last, always
      const order = a.value === null ? a.text.localeCompare(b.text) : a.value - b.value;
      return down ? -order : order;
    });
    body.append(...rows.map((one) => one.row));
  }

  for (const button of document.querySelectorAll("th button"))
    button.addEventListener("click", () => sort(button.closest("th")));
  for (const box of switches) box.addEventListener("change", update);
  net?.addEventListener("change", update);
  dark.addEventListener("change", update);
  let width = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    update();
  });
  if (document.documentElement.clientWidth < 640) document.getElementById("switches")?.removeAttribute("open");
  update();
})();
