// Makes every svg.schedrl-gantt of the page zoom (buttons, ctrl+wheel, pinch, + and -), pan (drag, arrow keys),
// and show a bar, its group and its arrows on hover or tap. The picture is complete without this script.
(() => {
  const first = document.querySelector("svg.schedrl-gantt");
  if (!first) return;
  const SVG = document.createElementNS.bind(document, first.namespaceURI);
  const GLYPH = 6.2;

  function niceTicks(low, high) {
    const raw = (high - low) / 8, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw * (1 - 1e-9));
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-12); k++) ticks.push(k * step);
    return ticks;
  }

  function textAt(x, y, content) {
    const text = SVG("text");
    text.setAttribute("x", x); text.setAttribute("y", y); text.setAttribute("text-anchor", "middle");
    text.textContent = content;
    return text;
  }

  function ink(fill) {
    const [r, g, b] = [1, 3, 5].map((i) => (parseInt(fill.slice(i, i + 2), 16) / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
  }

  function arrow(x0, y0, x1, y1) {
    const back = Math.atan2(y0 - y1, x0 - x1);
    const barbs = [0.42, -0.42].map((turn) => `${x1 + 5 * Math.cos(back + turn)} ${y1 + 5 * Math.sin(back + turn)}`);
    return `M${x0} ${y0}L${x1} ${y1}L${barbs[0]}M${barbs[1]}L${x1} ${y1}`;
  }

  function enhance(svg) {
    if (svg.dataset.ready) return;
    svg.dataset.ready = "1";
    const part = (name) => svg.querySelector("." + name);
    const plot = part("plot"), group = part("bars"), labels = part("labels"), ticks = part("ticks");
    const inside = (name) => [...(part(name)?.children ?? [])], marks = [...inside("events"), ...inside("marks")];
    const arrows = inside("arrows").map((node) => (
      { node, at: node.dataset.a.split(" ").map(Number), ends: node.dataset.e.split(" ").map(Number) }));
    const width = +plot.getAttribute("width"), low = +svg.dataset.low, high = +svg.dataset.high;
    const bars = [...group.children].map((node) => {
      const title = node.querySelector("title"), at = (name) => +node.getAttribute(name);
      const bar = { node, x: at("x"), w: at("width"), y: at("y"), h: at("height"), g: node.dataset.g,
        l: node.dataset.l, t: title.textContent, ink: ink(node.getAttribute("fill")) };
      title.remove();
      node.style.vectorEffect = "non-scaling-stroke";
      return bar;
    });
    const barOf = new Map(bars.map((bar) => [bar.node, bar]));
    let zoom = 1, offset = 0, pending = false;

    const tip = document.createElement("div");
    tip.style.cssText = "position:fixed;display:none;pointer-events:none;z-index:9;background:#222;color:#fff;" +
      "font:12px system-ui,sans-serif;padding:4px 8px;border-radius:4px;max-width:90vw";
    document.body.append(tip);

    function draw() {
      pending = false;
      group.setAttribute("transform", `matrix(${zoom} 0 0 1 ${-offset * zoom} 0)`);
      labels.replaceChildren(...bars.flatMap((bar) => {
        const w = bar.w * zoom, x = (bar.x - offset) * zoom;
        if (w < GLYPH * bar.l.length + 4 || x + w < 0 || x > width) return [];
        const text = textAt(x + w / 2, bar.y + bar.h / 2 + 4, bar.l);
        text.setAttribute("fill", bar.ink);
        return [text];
      }));
      const perUnit = (high - low) / width, from = low + offset * perUnit;
      ticks.replaceChildren(...niceTicks(from, from + (width / zoom) * perUnit).map((time) => {
        const tick = SVG("g"), line = SVG("path");
        tick.setAttribute("transform", `translate(${((time - from) / perUnit) * zoom})`);
        line.setAttribute("d", "M0 0v5"); line.setAttribute("stroke", "#666");
        tick.append(line, textAt(0, 17, String(+time.toPrecision(12))));
        return tick;
      }));
      for (const { node, at: [x0, y0, x1, y1] } of arrows)
        node.setAttribute("d", arrow((x0 - offset) * zoom, y0, (x1 - offset) * zoom, y1));
      for (const mark of marks) {
        const x = (+mark.dataset.x - offset) * zoom;
        mark.setAttribute("transform", `translate(${x})`);
        mark.style.display = x < -1 || x > width + 1 ? "none" : "";
      }
    }

    function view(newZoom, newOffset) {
      zoom = Math.min(Math.max(newZoom, 1), 400);
      offset = Math.min(Math.max(newOffset, 0), width - width / zoom);
      if (!pending) { pending = true; requestAnimationFrame(draw); }
    }
    const zoomAt = (factor, x) => {
      const next = Math.min(Math.max(zoom * factor, 1), 400);
      view(next, offset + x / zoom - x / next);
    };
    const unit = () => svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
    const plotX = (clientX) => (clientX - svg.getBoundingClientRect().left) * unit() - +plot.getAttribute("x");

    function show(bar, event) {
      for (const other of bars) other.node.style.opacity = !bar || other.g === bar.g ? "" : "0.25";
      for (const { node, ends } of arrows)
        node.style.strokeOpacity = !bar ? "" : ends.some((end) => bars[end] === bar) ? "1" : "0.1";
      tip.style.display = bar ? "block" : "none";
      if (!bar) return;
      tip.textContent = bar.t;
      tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4)) + "px";
      tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + "px";
    }

    const pointers = new Map();
    svg.style.touchAction = "pan-y";
    svg.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, event.clientX); });
    svg.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) return show(barOf.get(event.target), event);
      const other = [...pointers].find(([id]) => id !== event.pointerId);
      if (other) {
        const old = Math.abs(before - other[1]), now = Math.abs(event.clientX - other[1]);
        if (old > 4 && now > 4) zoomAt(now / old, plotX((event.clientX + other[1]) / 2));
      } else if (zoom > 1) {
        svg.setPointerCapture(event.pointerId);
        view(zoom, offset - ((event.clientX - before) * unit()) / zoom);
      }
      pointers.set(event.pointerId, event.clientX);
    });
    for (const name of ["pointerup", "pointercancel"])
      svg.addEventListener(name, (event) => pointers.delete(event.pointerId));
    svg.addEventListener("pointerleave", (event) => {
      pointers.delete(event.pointerId);
      if (event.pointerType === "mouse") show(null);
    });
    svg.addEventListener("click", (event) => show(barOf.get(event.target), event));
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoomAt(2 ** (-event.deltaY / 200), plotX(event.clientX));
    }, { passive: false });
    svg.tabIndex = 0;
    svg.addEventListener("keydown", (event) => {
      const act = { "+": () => zoomAt(1.5, width / 2), "-": () => zoomAt(1 / 1.5, width / 2), 0: () => view(1, 0),
        ArrowLeft: () => view(zoom, offset - width / zoom / 8), ArrowRight: () => view(zoom, offset + width / zoom / 8) }[event.key];
      if (act) { event.preventDefault(); act(); }
    });

    const bar = document.createElement("div");
    bar.style.cssText = "text-align:right;margin:0 0 2px";
    for (const [label, name, act] of [["+", "zoom in", () => zoomAt(1.6, width / 2)],
      ["\u2212", "zoom out", () => zoomAt(1 / 1.6, width / 2)], ["\u21ba", "show all", () => view(1, 0)]]) {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = label; button.title = name; button.setAttribute("aria-label", name);
      button.style.cssText = "min-width:2.4em;min-height:2.2em;margin-left:4px";
      button.addEventListener("click", act);
      bar.append(button);
    }
    svg.before(bar);
  }
  document.querySelectorAll("svg.schedrl-gantt").forEach(enhance);
})();
