// Draws the plot, and brings the page up to date as samples come in.
(() => {
  "use strict";
  const body = document.body;
  if (!body.dataset.live) return;
  const status = document.getElementById("live");
  const pause = document.getElementById("pause");
  const plot = makePlot(document.getElementById("plot"));
  const MOST = 300;
  let paused = false, seen = null, refreshed = Date.now();

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on updating" : "Pause updates";
    if (!paused) refresh();
  });

  const source = new EventSource(body.dataset.live);
  source.onopen = () => say("live", false);
  source.onerror = () => say("connection lost, trying again", true);
  source.onmessage = (event) => {
    const sample = JSON.parse(event.data);
    if (sample.problem) return say(sample.problem, true);
    say(`live: ${sample.added}/s added, ${sample.ended}/s ended`, false);
    if (plot) plot.add(sample);
    const changed = sample.version !== seen;
    seen = sample.version;
    if (changed || Date.now() - refreshed > 10000) refresh();
  };

  function refresh() {
    if (isLeftAlone()) return;
    refreshed = Date.now();
    window.htmx.trigger(document.getElementById("page"), "refresh");
  }

  // What was asked for may come when somebody has begun to type.
  body.addEventListener("htmx:beforeSwap", (event) => {
    if (isLeftAlone()) event.detail.shouldSwap = false;
  });

  // So is a page that somebody is typing into, selecting from, or not looking at.
  function isLeftAlone() {
    const page = document.getElementById("page");
    const fields = [...page.querySelectorAll("input, textarea")];
    return paused || document.hidden || location.pathname.endsWith("/doctor")
      || page.querySelector("form.confirm, details[open]") !== null
      || fields.includes(document.activeElement)
      || fields.some((field) => field.type === "checkbox" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue)
      || String(window.getSelection()) !== "";
  }

  // Said again only when it differs, so that a screen reader is not kept busy.
  function say(text, isDown) {
    status.classList.toggle("down", isDown);
    status.setAttribute("aria-live", isDown ? "polite" : "off");
    if (status.textContent !== text) status.textContent = text;
  }

  function makePlot(place) {
    if (!place || !window.uPlot) return null;
    const samples = JSON.parse(place.dataset.samples);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const data = () => ["at", "added", "ended"].map((name) => samples.map((sample) => sample[name]));
    const made = new window.uPlot({
      width: Math.max(260, place.clientWidth), height: 170,
      series: [{}, { label: "added/s", stroke: colour("--link"), width: 2 },
               { label: "ended/s", stroke: colour("--good"), width: 2, dash: [6, 3] }],
      axes: [axis, { ...axis, size: 60 }],
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    }, data(), place);
    window.addEventListener("resize", () => made.setSize({ width: Math.max(260, place.clientWidth), height: 170 }));
    return {
      add(sample) {
        samples.push(sample);
        if (samples.length > MOST) samples.shift();
        made.setData(data());
        place.dataset.count = String(samples.length);
      },
    };
  }
})();
