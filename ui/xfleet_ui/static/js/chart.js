// The traffic chart: uPlot, drawn in the theme's colours, fed live by the page's event stream.
const LIBRARY = new URL("../vendor/uplot@1.6.32/uPlot.iife.min.js", import.meta.url).href;
const STYLE = new URL("../vendor/uplot@1.6.32/uPlot.min.css", import.meta.url).href;
const LIVE_WINDOW_S = 3600;
const charts = new Map();
const early = []; // live points that came before the library
let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: STYLE });
    const script = Object.assign(document.createElement("script"), { src: LIBRARY });
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(style, script);
  });
  return loading;
}

// Canvas understands no var(), light-dark() or color-mix(): an element that wears the colour says what it comes to.
function colour(name, share = 100) {
  const probe = document.createElement("span");
  probe.style.color = `color-mix(in srgb, var(${name}) ${share}%, transparent)`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

export function rate(bytesPerSecond) {
  if (bytesPerSecond == null) return "–";
  const units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
  let value = bytesPerSecond * 8;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${units[unit]}`;
}

const two = (number) => String(number).padStart(2, "0");
const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
const day = (date) => `${two(date.getDate())}.${two(date.getMonth() + 1)}.`;

function ticks(range) {
  return (_plot, splits) => splits.map((seconds) => {
    const date = new Date(seconds * 1000);
    return range === "7d" || (date.getHours() === 0 && date.getMinutes() === 0) ? day(date) : clock(date);
  });
}

// Steps of 1, 2 or 5 in bits, although the data are bytes.
function bitSplits(_plot, _axis, _min, max) {
  const top = Math.max(max * 8, 1);
  const rough = top / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const splits = [];
  for (let bits = 0; bits <= top * 1.001; bits += step) splits.push(bits / 8);
  return splits;
}

function options(element, range) {
  const grid = { stroke: colour("--tblr-border-color"), width: 1 };
  const axis = { stroke: colour("--tblr-secondary-color"), font: "11px Inter, Vazirmatn, sans-serif", ticks: { show: false } };
  const series = (name, label) => ({
    label, stroke: colour(name), width: 1.75, fill: colour(name, 11), points: { show: false }, spanGaps: false,
  });
  const legend = element.closest(".card");
  const say = (key, value) => { const place = legend?.querySelector(`[data-chart-value="${key}"]`); if (place) place.textContent = rate(value); };
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    legend: { show: false },
    cursor: { y: false, points: { size: 7, width: 2 }, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (_plot, _min, max) => [0, Math.max(max * 1.12, 125)] } },
    series: [{}, series("--xf-down", element.dataset.labelDown), series("--xf-up", element.dataset.labelUp)],
    axes: [
      { ...axis, grid: { show: false }, values: ticks(range), space: 64, size: 28 },
      { ...axis, grid, splits: bitSplits, values: (_plot, splits) => splits.map(rate), size: 74 },
    ],
    hooks: {
      setCursor: [(plot) => {
        const last = plot.data[0].length - 1;
        const index = plot.cursor.idx ?? last;
        say("down", plot.data[1][index]);
        say("up", plot.data[2][index]);
      }],
    },
  };
}

function draw(element) {
  charts.get(element)?.plot.destroy();
  const range = element.dataset.chart;
  const [at, up, down] = charts.get(element)?.data ?? JSON.parse(element.dataset.points);
  const plot = new uPlot(options(element, range), [at, down, up], element);
  charts.set(element, { plot, data: [at, up, down], range });
  plot.setCursor({ left: -10, top: -10 });
  for (const point of early.splice(0)) append(point);
}

async function drawAll() {
  for (const [element, chart] of charts) {
    if (!element.isConnected) { chart.plot.destroy(); charts.delete(element); }
  }
  const wanted = [...document.querySelectorAll("[data-chart]")].filter((element) => !charts.has(element));
  if (!wanted.length) return;
  await load();
  for (const element of wanted) {
    if (!element.isConnected || charts.has(element)) continue;
    draw(element);
    new ResizeObserver(() => {
      const chart = charts.get(element);
      if (chart && element.clientWidth) chart.plot.setSize({ width: element.clientWidth, height: element.clientHeight });
    }).observe(element);
  }
}

function append(point) {
  if (!charts.size) { early.push(point); return; }
  for (const chart of charts.values()) {
    if (chart.range !== "1h") continue;
    const [at, up, down] = chart.data;
    if (at.length && point[0] <= at[at.length - 1]) continue;
    at.push(point[0]); up.push(point[1]); down.push(point[2]);
    while (at.length > 2 && at[0] < point[0] - LIVE_WINDOW_S) { at.shift(); up.shift(); down.shift(); }
    chart.plot.setData([at, down, up]);
    chart.plot.setCursor({ left: chart.plot.cursor.left, top: chart.plot.cursor.top });
  }
}

export function startCharts() {
  drawAll();
  document.addEventListener("htmx:after:settle", drawAll);
  document.addEventListener("traffic", (event) => append(JSON.parse(event.detail.data)));
  addEventListener("xfleet:theme", () => { for (const element of charts.keys()) draw(element); });
}
