// Fills a page from the JSON data block in it. Texts of the data are only ever inserted as text nodes.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const VERDICTS = { met: "met", not_met: "not met", undecided: "undecided", not_assessed: "not assessed" };
  const LEVELS = ["severe", "warning", "info"];
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  // --- elements ------------------------------------------------------------------------------------------------------

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined) node.append(child);
    }
    return node;
  }
  // A name may hold letters of either direction; isolated, it cannot reorder what stands beside it.
  const named = (text) => el("bdi", {}, text);
  // The same, with places to break after the signs that join words in file names and codes.
  const joined = (text) => el("bdi", {}, text.split(/(?<=[_.\-])(?=\w)/).map((part, k) => (k ? [el("wbr"), part] : part)));
  const verdict = (kind) => (kind ? el("span", { class: `verdict ${kind}` }, VERDICTS[kind] || kind) : "");
  const list = (rows) => el("dl", {}, rows.map(([label, text]) => [
    el("dt", {}, label), el("dd", { class: label.startsWith("SHA") ? "hash" : null }, named(text)),
  ]));

  function choice(label, options, value, change) {
    const box = el("select", { onchange: () => change(box.value) },
      options.map(([key, text]) => el("option", { value: key }, text)));
    box.value = value;
    return { node: el("label", {}, label, box), box };
  }

  // --- theme ---------------------------------------------------------------------------------------------------------

  const repaints = new Set();
  const repaint = () => repaints.forEach((draw) => draw());
  const remembered = () => {
    try { return localStorage.getItem("xrdz-theme") || ""; } catch { return ""; } // storage may be forbidden
  };
  function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("xrdz-theme", theme); } catch { /* the choice then lasts for this page only */ }
    repaint();
  }
  function themeButton() {
    const names = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
    const next = { "": "light", light: "dark", dark: "" };
    const button = el("button", { type: "button", id: "theme" }, names[remembered()] || names[""]);
    button.addEventListener("click", () => {
      const theme = next[document.documentElement.dataset.theme || ""];
      setTheme(theme);
      button.textContent = names[theme];
    });
    return button;
  }
  if (remembered()) document.documentElement.dataset.theme = remembered();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  let printing = false;
  window.addEventListener("beforeprint", () => { printing = true; repaint(); });
  window.addEventListener("afterprint", () => { printing = false; repaint(); });
  const PAPER = { ground: "#fff", ink: "#1d2126", faint: "#56606a", rule: "#c9ced4", grid: "#e4e7eb", band: "#dce9f2",
    excluded: "#d5d8dc", observed: "#33383e", calculated: "#c1121f", background: "#6e6e6e", marked: "#aa00aa",
    met: "#146c43", not_met: "#a4161a", undecided: "#7a4f01", not_assessed: "#56606a", accent: "#1f4e8c" };
  function palette() {
    if (printing) return PAPER;
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(Object.keys(PAPER).map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  // --- scales and axes -----------------------------------------------------------------------------------------------

  const SCALES = {
    linear: { to: (v) => v, from: (v) => v },
    sqrt: { to: (v) => Math.sign(v) * Math.sqrt(Math.abs(v)), from: (v) => Math.sign(v) * v * v },
    log: { to: (v) => Math.log10(Math.max(v, 1e-9)), from: (v) => 10 ** v },
  };

  function roundTicks(low, high, most) {
    const raw = (high - low) / most;
    if (!(raw > 0)) return [];
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw * (1 - 1e-9));
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) ticks.push(k * step);
    return ticks;
  }
  function scaledTicks(scale, low, high, most) {
    if (scale === "linear") return roundTicks(low, high, most);
    const { from } = SCALES[scale];
    if (scale === "log" && high - low > 0.7) {
      const digits = high - low > 3 ? [1] : [1, 2, 5];
      const ticks = [];
      for (let p = Math.floor(low); p <= Math.ceil(high); p += 1) {
        for (const d of digits) {
          const t = d * 10 ** p;
          if (Math.log10(t) >= low - 1e-9 && Math.log10(t) <= high + 1e-9) ticks.push(t);
        }
      }
      return ticks;
    }
    if (scale === "log") return roundTicks(from(low), from(high), most);
    const ticks = [];
    for (let k = 0; k <= most; k += 1) {
      const value = from(low + ((high - low) * k) / most);
      if (value <= 0) { if (!ticks.length) ticks.push(0); continue; }
      const unit = 10 ** Math.floor(Math.log10(value));
      const round = [1, 2, 3, 5, 7, 10].map((d) => d * unit)
        .reduce((best, each) => (Math.abs(each - value) < Math.abs(best - value) ? each : best));
      if (!ticks.includes(round) && round <= from(high)) ticks.push(round);
    }
    return ticks;
  }
  const shown = (value) => {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
    return String(Number(value.toPrecision(6)));
  };

  // --- a canvas that zooms: drag, wheel, keys, buttons ---------------------------------------------------------------

  // `spec` gives height, full [low, high] in x, yRange(x0, x1) in scaled y, draw(plot), read(plot, x, y) -> text or
  // null, and optionally activate(plot) for a click or Enter and step(plot, direction) for the arrow keys.
  function zoomable(host, spec) {
    const canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": spec.label,
      "aria-describedby": `${spec.id}-help`, id: spec.id });
    const readout = el("output", { class: "readout", id: `${spec.id}-readout`, "aria-live": "polite" });
    const help = el("span", { id: `${spec.id}-help`, class: "help faint small" }, spec.help);
    host.append(el("div", { class: "chart" }, canvas, readout), help);
    const context = canvas.getContext("2d");
    const plot = { canvas, context, readout, view: { x0: 0, x1: 1, y: null }, cursor: null, drag: null, area: null };
    const limit = () => {
      const [low, high] = spec.full();
      const { view } = plot;
      const span = Math.min(Math.max(view.x1 - view.x0, (high - low) / spec.mostZoom), high - low);
      view.x0 = Math.min(Math.max(view.x0, low), high - span);
      view.x1 = view.x0 + span;
    };
    plot.zoomed = () => {
      const [low, high] = spec.full();
      return plot.view.x1 - plot.view.x0 < (high - low) * (1 - 1e-9);
    };
    plot.draw = () => {
      const ratio = printing ? 3 : window.devicePixelRatio || 1;
      const width = Math.max(canvas.clientWidth || host.clientWidth, 200);
      const height = spec.height(width);
      canvas.style.height = `${height}px`;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      plot.width = width;
      plot.height = height;
      plot.colours = palette();
      context.fillStyle = plot.colours.ground;
      context.fillRect(0, 0, width, height);
      context.font = '12px system-ui, "Segoe UI", sans-serif';
      plot.area = spec.area(plot);
      plot.y = plot.view.y || spec.yRange(plot.view.x0, plot.view.x1, plot);
      spec.draw(plot);
      const { drag, area } = plot;
      if (drag && drag.moved) {
        context.fillStyle = plot.colours.accent;
        context.globalAlpha = 0.18;
        const tall = drag.tall;
        context.fillRect(Math.min(drag.x, drag.nowX), tall ? Math.min(drag.y, drag.nowY) : area.top,
          Math.abs(drag.nowX - drag.x), tall ? Math.abs(drag.nowY - drag.y) : area.bottom - area.top);
        context.globalAlpha = 1;
      }
      canvas.dataset.view = `${plot.view.x0.toPrecision(8)} ${plot.view.x1.toPrecision(8)}`;
    };
    plot.px = (x) => plot.area.left
      + ((x - plot.view.x0) / (plot.view.x1 - plot.view.x0)) * (plot.area.right - plot.area.left);
    plot.py = (scaled) => plot.area.bottom
      - ((scaled - plot.y[0]) / (plot.y[1] - plot.y[0])) * (plot.area.bottom - plot.area.top);
    plot.x = (px) => plot.view.x0
      + ((px - plot.area.left) / (plot.area.right - plot.area.left)) * (plot.view.x1 - plot.view.x0);
    plot.scaledY = (py) => plot.y[0]
      + ((plot.area.bottom - py) / (plot.area.bottom - plot.area.top)) * (plot.y[1] - plot.y[0]);
    plot.reset = () => {
      [plot.view.x0, plot.view.x1] = spec.full();
      plot.view.y = null;
      plot.draw();
    };
    plot.zoom = (factor, about) => {
      const { view } = plot;
      const centre = about === undefined ? 0.5 * (view.x0 + view.x1) : about;
      view.x0 = centre - (centre - view.x0) * factor;
      view.x1 = centre + (view.x1 - centre) * factor;
      limit();
      plot.draw();
    };
    plot.pan = (share) => {
      const shift = share * (plot.view.x1 - plot.view.x0);
      plot.view.x0 += shift;
      plot.view.x1 += shift;
      limit();
      plot.draw();
    };
    plot.say = (x, y) => {
      plot.cursor = { x, y };
      const text = spec.read(plot, x, y);
      readout.textContent = text || "";
      plot.draw();
    };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const [x, y] = at(event);
      if (x < plot.area.left || x > plot.area.right) return;
      plot.drag = { x, y, nowX: x, nowY: y, moved: false, tall: false };
      if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (plot.drag) {
        plot.drag.nowX = Math.min(Math.max(x, plot.area.left), plot.area.right);
        plot.drag.nowY = Math.min(Math.max(y, plot.area.top), plot.area.bottom);
        plot.drag.moved = Math.abs(plot.drag.nowX - plot.drag.x) > 5;
        plot.drag.tall = spec.tall && plot.drag.y < plot.area.bottom && Math.abs(plot.drag.nowY - plot.drag.y) > 25;
      }
      plot.say(plot.x(x), y);
    });
    canvas.addEventListener("pointerup", (event) => {
      const { drag } = plot;
      plot.drag = null;
      if (drag && drag.moved) {
        const ends = [plot.x(drag.x), plot.x(drag.nowX)].sort((a, b) => a - b);
        if (drag.tall) plot.view.y = [plot.scaledY(drag.y), plot.scaledY(drag.nowY)].sort((a, b) => a - b);
        [plot.view.x0, plot.view.x1] = ends;
        limit();
        plot.draw();
      } else if (drag && spec.activate) {
        const [x, y] = at(event);
        plot.say(plot.x(x), y);
        spec.activate(plot, y);
      }
    });
    canvas.addEventListener("pointercancel", () => { plot.drag = null; plot.draw(); });
    canvas.addEventListener("pointerleave", () => { if (!plot.drag) { plot.cursor = null; plot.draw(); } });
    canvas.addEventListener("dblclick", plot.reset);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x] = at(event);
      plot.zoom(event.deltaY > 0 ? 1.25 : 0.8, plot.x(Math.min(Math.max(x, plot.area.left), plot.area.right)));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = {
        "+": () => plot.zoom(0.5, plot.cursor ? plot.cursor.x : undefined), "-": () => plot.zoom(2),
        ArrowLeft: () => (spec.step && !event.shiftKey ? spec.step(plot, -1) : plot.pan(-0.2)),
        ArrowRight: () => (spec.step && !event.shiftKey ? spec.step(plot, 1) : plot.pan(0.2)),
        Home: plot.reset, 0: plot.reset, Escape: plot.reset,
        Enter: () => spec.activate && spec.activate(plot),
        ...(spec.keys ? spec.keys(plot) : {}),
      };
      keys["="] = keys["+"];
      if (!keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    plot.buttons = () => [
      el("button", { type: "button", onclick: () => plot.zoom(0.5), "aria-label": "Zoom in" }, "+"),
      el("button", { type: "button", onclick: () => plot.zoom(2), "aria-label": "Zoom out" }, "−"),
      el("button", { type: "button", onclick: plot.reset, id: `${spec.id}-reset` }, "Reset zoom"),
    ];
    new ResizeObserver(() => { if (Math.abs(canvas.clientWidth - (plot.width || 0)) > 1) plot.draw(); }).observe(canvas);
    repaints.add(plot.draw);
    plot.reset();
    return plot;
  }

  function frame(plot, { xTicks, xLabel, yTicks, yAt, yLabel, bottom }) {
    const { context: c, area, colours } = plot;
    const low = bottom || area.bottom;
    c.lineWidth = 1;
    c.textBaseline = "middle";
    c.textAlign = "right";
    for (const value of yTicks) {
      const y = yAt(value);
      if (y < area.top - 1 || y > area.bottom + 1) continue;
      c.strokeStyle = colours.grid;
      line(c, [[area.left, y], [area.right, y]]);
      c.fillStyle = colours.ink;
      c.fillText(shown(value), area.left - 6, y);
    }
    c.textAlign = "center";
    c.textBaseline = "top";
    for (const value of xTicks) {
      const x = plot.px(value);
      c.strokeStyle = colours.grid;
      line(c, [[x, area.top], [x, low]]);
      c.fillStyle = colours.ink;
      const label = shown(Number(value.toPrecision(8)));
      c.fillText(label, Math.min(x, plot.width - 2 - 0.5 * c.measureText(label).width), low + 5);
    }
    c.fillStyle = colours.faint;
    c.fillText(xLabel, 0.5 * (area.left + area.right), low + 19);
    c.textAlign = "left";
    c.fillText(yLabel, area.left + 6, area.top + 5);
    c.strokeStyle = colours.rule;
    c.strokeRect(area.left, area.top, area.right - area.left, low - area.top);
  }
  function line(c, points) {
    c.beginPath();
    points.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
    c.stroke();
  }
  function within(plot, top, bottom, draw) {
    const { context: c, area } = plot;
    c.save();
    c.beginPath();
    c.rect(area.left, top, area.right - area.left, bottom - top);
    c.clip();
    draw(c);
    c.restore();
  }
  function mark(c, kind, x, y, r) {
    c.beginPath();
    if (kind === "not_met") c.rect(x - r, y - r, 2 * r, 2 * r);
    else if (kind === "undecided") { c.moveTo(x, y - 1.2 * r); c.lineTo(x + 1.2 * r, y + r); c.lineTo(x - 1.2 * r, y + r); }
    else c.arc(x, y, r, 0, 7);
    if (kind === "not_assessed") c.stroke(); else c.fill();
  }

  // From a limit to where the value lies.
  function arrow(c, x, from, tip, r) {
    const back = tip < from ? 1.5 * r : -1.5 * r;
    line(c, [[x - r, from], [x + r, from]]);
    line(c, [[x - r, tip + back], [x, tip], [x + r, tip + back]]);
  }

  // --- points in a row: the mass ratios of a run, a control chart ----------------------------------------------------

  function pointChart(host, options) {
    let points = [];
    let lines = [];
    const log = SCALES.log;
    const near = (plot) => {
      if (!plot.cursor || !points.length) return -1;
      return Math.min(Math.max(Math.round(plot.cursor.x) - 1, 0), points.length - 1);
    };
    const plot = zoomable(host, {
      ...options,
      help: "Wheel, drag or + and - zoom; left and right arrows go from scan to scan, Enter or a click opens it; "
        + "Home shows all.",
      mostZoom: 2000,
      height: (width) => Math.round(Math.min(Math.max(0.24 * width, 210), 320)),
      full: () => [0.5, Math.max(points.length, 1) + 0.5],
      area: (p) => ({ left: 52, right: p.width - 10, top: 8, bottom: p.height - 40 }),
      yRange: (x0, x1) => {
        const ends = lines.map((each) => each.y);
        const first = Math.max(Math.ceil(x0) - 1, 0);
        for (let k = first; k < Math.min(Math.floor(x1), points.length); k += 1) {
          for (const value of [points[k].z, points[k].low, points[k].high]) if (value > 0) ends.push(value);
        }
        if (!ends.length) return [-1, 1];
        let low = Infinity;
        let high = -Infinity;
        for (const value of ends) { low = Math.min(low, value); high = Math.max(high, value); }
        const room = Math.max((lines.some((each) => each.text) ? 0.12 : 0.06) * log.to(high / low), 0.005);
        return [log.to(low) - room, log.to(high) + room];
      },
      draw: (p) => {
        const { area, colours, context: c } = p;
        const ticks = roundTicks(p.view.x0, p.view.x1, Math.max(p.width / 90, 3)).filter((t) => t % 1 === 0 && t > 0);
        frame(p, { xTicks: ticks, xLabel: options.xLabel(), yLabel: options.yLabel(),
          yTicks: scaledTicks("log", p.y[0], p.y[1], 6), yAt: (v) => p.py(log.to(v)) });
        within(p, area.top, area.bottom, () => {
          c.textAlign = "right";
          c.textBaseline = "bottom";
          for (const each of lines) {
            c.strokeStyle = each.strong ? colours.ink : colours.faint;
            c.setLineDash(each.dash || []);
            const y = p.py(log.to(each.y));
            line(c, [[area.left, y], [area.right, y]]);
            c.fillStyle = colours.faint;
            const below = each.below ? y < area.bottom - 16 : y < area.top + 16;
            c.textBaseline = below ? "top" : "bottom";
            if (each.text) c.fillText(each.text, area.right - 4, y + (below ? 3 : -1));
          }
          c.setLineDash([]);
          const gap = (area.right - area.left) / (p.view.x1 - p.view.x0);
          const r = Math.min(Math.max(0.3 * gap, 1.3), 4.5);
          const first = Math.max(Math.floor(p.view.x0) - 2, 0);
          const last = Math.min(Math.ceil(p.view.x1) + 1, points.length);
          if (options.connect) {
            c.strokeStyle = colours.faint;
            line(c, points.slice(first, last).map((each, k) => [p.px(first + k + 1), p.py(log.to(each.z))]));
          }
          for (let k = first; k < last; k += 1) {
            const each = points[k];
            const x = p.px(k + 1);
            c.fillStyle = c.strokeStyle = colours[each.kind] || colours.ink;
            if (each.low > 0 || each.high > 0) {
              line(c, [[x, each.low > 0 ? p.py(log.to(each.low)) : area.bottom],
                [x, each.high > 0 ? p.py(log.to(each.high)) : area.top]]);
            }
            if (each.z > 0) mark(c, each.kind, x, p.py(log.to(each.z)), each.broken ? r + 2 : r);
            else if (each.low > 0) arrow(c, x, p.py(log.to(each.low)), area.top, r);
            else if (each.high > 0) arrow(c, x, p.py(log.to(each.high)), area.bottom, r);
            if (each.broken && gap > 14) {
              c.textAlign = "center";
              const y = p.py(log.to(each.z));
              c.fillText(each.broken, x, y - 22 < area.top ? y + 22 : y - 8); // inside the frame
            }
          }
          const chosen = near(p);
          if (chosen >= 0) {
            c.strokeStyle = colours.accent;
            line(c, [[p.px(chosen + 1), area.top], [p.px(chosen + 1), area.bottom]]);
          }
        });
      },
      read: (p) => { const chosen = near(p); return chosen < 0 ? "" : points[chosen].text(); },
      step: (p, direction) => {
        const chosen = p.cursor ? near(p) + direction : direction > 0 ? 0 : points.length - 1;
        const place = Math.min(Math.max(chosen, 0), points.length - 1) + 1;
        if (place < p.view.x0 || place > p.view.x1) p.pan(direction * 0.5);
        p.say(place, 0);
      },
      activate: (p) => { const chosen = near(p); if (chosen >= 0) window.location.href = points[chosen].href; },
    });
    plot.show = (nextPoints, nextLines) => { points = nextPoints; lines = nextLines; plot.cursor = null; plot.reset(); };
    return plot;
  }

  // --- the page of a run ---------------------------------------------------------------------------------------------

  function runPage() {
    const rows = data.rows;
    rows.forEach((row, k) => {
      for (const key of ["sample", "instrument", "value", "interval", "level", "measured"]) row[key] = row[key] || "";
      for (const key of ["z", "low", "high", "rwp", "gof"]) row[key] = row[key] === undefined ? null : row[key];
      row.number = k + 1;
      row.href = data.folder + row.href;
      row.status = row.status || "converged";
      row.codes = row.codes || {};
      row.provisional = Array.from(row.claims, (letter) => letter !== letter.toLowerCase());
      row.claims = Array.from(row.claims, (letter) => data.letters[letter.toLowerCase()]);
      row.codeText = Object.entries(row.codes).map(([code, n]) => (n > 1 ? `${code} ×${n}` : code)).join(", ");
      row.search = `${row.name} ${row.sample}`.toLowerCase();
    });
    const initial = { query: "", claim: "2", verdict: "", code: "", level: "", status: "", instrument: "",
      sort: "number", order: "up", page: "1", size: "100" };
    const state = { ...initial };
    const read = () => Object.assign(state, initial, Object.fromEntries(
      [...new URLSearchParams(window.location.hash.slice(1))].filter(([key]) => key in initial)));
    const write = () => {
      const kept = Object.entries(state).filter(([key, value]) => value !== initial[key]);
      const hash = new URLSearchParams(kept).toString();
      window.history.replaceState(null, "", hash ? `#${hash}` : window.location.pathname + window.location.search);
    };
    const claimOf = (row) => row.claims[Number(state.claim) - 1] || "";
    const compare = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;
    const shownClaims = () => [...new Set([1, 2, Number(state.claim)])].filter((n) => data.claims.includes(n));
    const hasSamples = rows.some((row) => row.sample);
    const columns = () => [
      { key: "number", label: "#", number: true, of: (row) => row.number, cell: (row) => String(row.number) },
      { key: "name", label: "Scan", name: true, of: (row) => row.name,
        cell: (row) => el("a", { href: row.href }, joined(row.name)) },
      ...(hasSamples ? [{ key: "sample", label: "Sample", name: true, of: (row) => row.sample,
        cell: (row) => named(row.sample) }] : []),
      { key: "z", label: data.ratio, number: true, of: (row) => row.z, cell: (row) => row.value },
      { key: "width", label: "95 % interval", of: (row) => (row.high && row.low ? row.high / row.low : null),
        cell: (row) => row.interval },
      ...data.phases.map(([id, formula], k) => ({ key: `share-${id}`, label: `${formula}, mass %`, number: true,
        of: (row) => row.shares[k][1], cell: (row) => row.shares[k][0] })),
      ...shownClaims().map((n) => ({ key: `claim-${n}`, label: `Claim ${n}`,
        of: (row) => Object.keys(VERDICTS).indexOf(row.claims[n - 1]), cell: (row) => [verdict(row.claims[n - 1]), row.provisional[n - 1] ? " †" : ""] })),
      { key: "level", label: "Findings", wide: true, of: (row) => (row.level ? LEVELS.indexOf(row.level) : 9),
        cell: (row) => (row.level ? [el("span", { class: `level ${row.level}` }, row.level), " ",
          el("span", { class: "small" }, joined(row.codeText))] : "") },
      ...(rows.some((row) => row.status !== "converged") ? [{ key: "status", label: "Fit", of: (row) => row.status,
        short: true, cell: (row) => (row.status === "converged" ? "" : row.status) }] : []),
      { key: "rwp", label: "Rwp, %", number: true, of: (row) => row.rwp,
        cell: (row) => (row.rwp === null ? "" : row.rwp.toFixed(2)) },
      { key: "gof", label: "GoF", number: true, of: (row) => row.gof,
        cell: (row) => (row.gof === null ? "" : row.gof.toFixed(2)) },
    ];

    let found = rows;
    function select() {
      const query = state.query.trim().toLowerCase();
      found = rows.filter((row) => (!query || row.search.includes(query))
        && (!state.verdict || claimOf(row) === state.verdict)
        && (!state.code || state.code in row.codes)
        && (!state.level || row.level === state.level)
        && (!state.status || row.status === state.status)
        && (!state.instrument || row.instrument === state.instrument));
      const column = columns().find((each) => each.key === state.sort) || columns()[0];
      const sign = state.order === "down" ? -1 : 1;
      const keyed = found.map((row) => [column.of(row), row]);
      const missing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
      keyed.sort(([a, rowA], [b, rowB]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b) || rowA.number - rowB.number;
        const way = typeof a === "number" ? a - b : compare(a, b);
        return sign * way || rowA.number - rowB.number;
      });
      found = keyed.map(([, row]) => row);
    }

    const count = (key, of) => {
      const counts = new Map();
      for (const row of rows) for (const value of [of(row)].flat()) if (value) counts.set(value, (counts.get(value) || 0) + 1);
      return [...counts].sort((a, b) => b[1] - a[1] || compare(a[0], b[0]));
    };
    const counted = (of, all) => [["", all], ...count("", of).map(([value, n]) => [value, `${value} (${n})`])];

    // Header, filters and table are built once; only their content changes.
    const status = el("output", { id: "count", "aria-live": "polite", class: "faint" });
    const tiles = el("div", { class: "tiles", role: "group", "aria-label": "Verdicts" });
    const search = el("input", { type: "search", id: "search", placeholder: "file or sample", autocomplete: "off" });
    const later = (wait, run) => { let timer = 0; return () => { clearTimeout(timer); timer = setTimeout(run, wait); }; };
    const changed = (key, value) => { state[key] = value; state.page = "1"; render(); };
    search.addEventListener("input", later(120, () => changed("query", search.value)));
    const filters = {
      claim: choice("Claim", data.claims.map((n) => [String(n), `Claim ${n}`]), state.claim, (v) => changed("claim", v)),
      verdict: choice("Verdict", [["", "all"], ...Object.entries(VERDICTS)], "", (v) => changed("verdict", v)),
      level: choice("Worst finding", counted((row) => row.level, "any or none"), "", (v) => changed("level", v)),
      code: choice("Finding", counted((row) => Object.keys(row.codes), "any or none"), "", (v) => changed("code", v)),
      status: choice("Fit", counted((row) => row.status, "all"), "", (v) => changed("status", v)),
      instrument: choice("Instrument", counted((row) => row.instrument, "all"), "", (v) => changed("instrument", v)),
      size: choice("Rows a page", [["50", "50"], ["100", "100"], ["500", "500"], ["all", "all"]], "100",
        (v) => changed("size", v)),
    };
    for (const [key, each] of Object.entries(filters)) {
      each.box.id = `filter-${key}`;
      const least = key === "status" || key === "instrument" ? 3 : 2;
      each.node.hidden = each.box.options.length < least; // nothing to choose from
    }
    const head = el("tr");
    const body = el("tbody", { id: "rows" });
    const table = el("table", { class: "cards", id: "table" },
      el("caption", {}, "All scans of this run; a heading sorts by its column."), el("thead", {}, head), body);
    const pager = el("nav", { class: "bar", "aria-label": "Pages of the table" });
    const ratioHost = el("section", { "aria-label": "Mass ratios" }, el("h2", {}, `${data.ratio} of the scans shown`));
    const controlHost = el("section", { "aria-label": "Control chart" }, el("h2", {}, "Control chart"));

    document.body.append(
      el("a", { class: "skip", href: "#table" }, "Skip to the table"),
      el("header", { class: "top" },
        el("div", { class: "grow" }, el("h1", {}, `Run of ${rows.length} scan${rows.length === 1 ? "" : "s"}`),
          el("div", { class: "faint" }, named([data.laboratory, data.method].filter(Boolean).join(", ")))),
        el("span", { class: "faint small" }, `${data.issued}, ${data.software}`), themeButton()),
      el("main", {}, tiles, data.provisional.map((text) => el("p", { class: "undecided small" }, named(text))), el("div", { class: "charts" }, ratioHost, controlHost), el("h2", {}, "Scans"),
        el("form", { class: "bar", role: "search", onsubmit: (event) => event.preventDefault() },
          el("label", {}, "Search", search), Object.values(filters).map((each) => each.node),
          el("button", { type: "button", id: "clear", onclick: () => {
            Object.assign(state, initial, { sort: state.sort, order: state.order });
            render();
          } }, "Clear filters")),
        status, el("div", { class: "scroll" }, table), pager));

    const ratioChart = pointChart(ratioHost, { id: "ratio-chart", label: `${data.ratio} of all scans shown, logarithmic`,
      xLabel: () => "scan, in the order of the table", yLabel: () => "" });
    let charted = null;

    function renderTiles() {
      const counts = Object.fromEntries(count("", claimOf));
      tiles.replaceChildren(...Object.keys(VERDICTS).filter((kind) => counts[kind]).map((kind) => el("button", {
        type: "button", "data-verdict": kind, "aria-pressed": String(state.verdict === kind),
        onclick: () => changed("verdict", state.verdict === kind ? "" : kind),
      }, el("b", {}, String(counts[kind])), `claim ${state.claim} ${VERDICTS[kind]}`)));
    }
    function renderHead() {
      const focused = document.activeElement && document.activeElement.dataset.sort;
      head.replaceChildren(...columns().map((column) => el("th", { scope: "col", class: column.number ? "number" : null,
        "aria-sort": state.sort === column.key ? (state.order === "down" ? "descending" : "ascending") : "none" },
      el("button", { type: "button", "data-sort": column.key, onclick: () => {
        state.order = state.sort === column.key && state.order === "up" ? "down" : "up";
        state.sort = column.key;
        state.page = "1";
        render();
      } }, column.label))));
      if (focused) head.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
    }
    function renderRows() {
      const size = state.size === "all" ? Math.max(found.length, 1) : Number(state.size) || 100;
      const pages = Math.max(Math.ceil(found.length / size), 1);
      const now = Math.min(Math.max(Number(state.page) || 1, 1), pages);
      const list = columns();
      const part = document.createDocumentFragment();
      for (const row of found.slice((now - 1) * size, now * size)) {
        part.append(el("tr", {}, list.map((column) => el("td", {
          class: ["number", "name", "wide", "short"].find((kind) => column[kind]) || "nowrap", "data-label": column.label,
        }, column.cell(row)))));
      }
      body.replaceChildren(part);
      status.textContent = `${found.length} of ${rows.length} scans`
        + (pages > 1 ? `, page ${now} of ${pages}` : "");
      const go = (page) => () => {
        state.page = String(page);
        renderRows();
        write();
        table.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
      };
      pager.hidden = pages === 1;
      pager.replaceChildren(
        el("button", { type: "button", disabled: now === 1, onclick: go(1) }, "First"),
        el("button", { type: "button", disabled: now === 1, onclick: go(now - 1), id: "page-back" }, "Previous"),
        el("span", { class: "faint" }, `page ${now} of ${pages}`),
        el("button", { type: "button", disabled: now === pages, onclick: go(now + 1), id: "page-on" }, "Next"),
        el("button", { type: "button", disabled: now === pages, onclick: go(pages) }, "Last"));
    }
    function renderRatios() {
      const marked = found.filter((row) => row.z !== null || row.low !== null || row.high !== null);
      const key = `${state.claim} ${marked.map((row) => row.number).join()}`;
      if (key === charted) return;
      charted = key;
      ratioChart.show(marked.map((row) => ({ z: row.z, low: row.low, high: row.high, kind: claimOf(row), href: row.href,
        text: () => `${row.number}: ${row.name}${row.sample ? `, ${row.sample}` : ""}: ${data.ratio} ${row.value}`
          + `${row.interval ? `, ${row.interval}` : ""}, claim ${state.claim} ${VERDICTS[claimOf(row)] || "without verdict"}`
          + `${row.codeText ? `, ${row.codeText}` : ""}` })),
      (data.limits || []).map((y, k) => ({ y, dash: [6, 4], strong: true, below: k === 0, text: `limit of claim 2: ${y}` })));
    }
    function renderControl() {
      if (!data.charts.length) {
        controlHost.hidden = true;
        ratioHost.append(el("p", { class: "faint small" }, "No control chart: it needs five or more scans of one sample on "
          + "one instrument."));
        return;
      }
      const detail = el("div", { class: "small" });
      const pick = choice("Instrument and control sample", data.charts.map((chart, k) => [String(k),
        `${chart.instrument || "instrument not stated"}: ${chart.sample} (${chart.places.length})`]), "0", (v) => draw(Number(v)));
      pick.box.id = "control-pick";
      controlHost.append(el("div", { class: "bar" }, pick.node));
      const chart = pointChart(controlHost, { id: "control-chart", label: "Control chart of the mass ratio", connect: true,
        xLabel: () => (data.charts[Number(pick.box.value)].by_time ? "scan, by time of measurement" : "scan, in the order of names"),
        yLabel: () => "" });
      controlHost.append(detail);
      function draw(k) {
        const each = data.charts[k];
        const level = (n) => each.centre * Math.exp(n * each.sigma);
        chart.show(each.places.map((place, at) => {
          const row = rows[place];
          const broken = each.broken[at];
          return { z: row.z, kind: broken.length ? "not_met" : "accent", broken: broken.join(","), href: row.href,
            text: () => `${row.name}${row.measured ? `, ${row.measured}` : ""}: ${data.ratio} ${row.value}`
              + (broken.length ? `; breaks ${broken.map((n) => `rule ${data.rules[n - 1]}`).join("; ")}` : "; in control") };
        }), [{ y: each.centre, strong: true, text: "centre" },
          ...[1, 2, 3].flatMap((n) => [n, -n].map((m) => ({ y: level(m), dash: n === 3 ? [6, 4] : [2, 4],
            below: m < 0, text: n === 3 ? `${m > 0 ? "+" : "−"}3 sigma` : "" })))]);
        const bad = each.places.map((place, at) => [rows[place], each.broken[at]]).filter(([, broken]) => broken.length);
        detail.replaceChildren(
          el("p", {}, `Centre ${shown(Number(each.centre.toPrecision(4)))}, sigma of ln Z ${each.sigma.toPrecision(2)} `
            + `(mean moving range of ${each.places.length} scans); action limits ${shown(Number(level(-3).toPrecision(4)))} to `
            + `${shown(Number(level(3).toPrecision(4)))}. `
            + (bad.length ? `${bad.length} of ${each.places.length} scans break a rule:` : "No rule is broken.")),
          bad.length ? el("details", {}, el("summary", {}, "List them"), el("ul", { id: "control-broken" }, bad.map(([row, broken]) => el("li", {},
            el("a", { href: row.href }, named(row.name)), `: ${broken.map((n) => data.rules[n - 1]).join("; ")}`)))) : "");
      }
      draw(0);
    }
    function render() {
      search.value === state.query || (search.value = state.query);
      for (const [key, each] of Object.entries(filters)) each.box.value = state[key];
      select();
      renderTiles();
      renderHead();
      renderRows();
      renderRatios();
      write();
    }
    renderControl();
    read();
    render();
    window.addEventListener("hashchange", () => { read(); render(); });
  }

  // --- the page of a scan --------------------------------------------------------------------------------------------

  function unpack(curves) {
    const { n } = curves;
    const x = curves.two_theta || Array.from({ length: n }, (_, k) => curves.first + k * curves.step);
    const background = new Float64Array(n);
    const { places, values } = curves.background;
    for (let j = 0; j + 1 < places.length; j += 1) {
      const span = places[j + 1] - places[j];
      for (let k = places[j]; k <= places[j + 1]; k += 1) {
        background[k] = curves.unit * (values[j] + ((values[j + 1] - values[j]) * (k - places[j])) / span);
      }
    }
    const phases = curves.phases.map((phase) => ({ ...phase, curve: Float64Array.from(phase.values, (v) => v * curves.unit) }));
    const calculated = Float64Array.from(background);
    for (const phase of phases) phase.curve.forEach((v, k) => { calculated[k] += v; });
    const su = curves.su.values
      || Float64Array.from(calculated, (v) => Math.sqrt(Math.max(curves.su.gain * v, 1e-12)));
    const steps = x.slice(1).map((v, k) => v - x[k]).sort((a, b) => a - b);
    return { x, observed: curves.observed, background, calculated, su, phases, excluded: curves.excluded,
      gap: 5 * (steps[Math.floor(steps.length / 2)] || 1) };
  }

  function scanPlot(host, toolbar) {
    const curves = unpack(data.curves);
    const { x } = curves;
    const visible = { observed: true, calculated: true, background: true, difference: true };
    curves.phases.forEach((_, k) => { visible[`phase-${k}`] = true; });
    let scale = "linear";
    const between = (x0, x1) => {
      const first = x.findIndex((v) => v >= x0);
      let last = x.length;
      while (last > 0 && x[last - 1] > x1) last -= 1;
      return [Math.max((first < 0 ? 0 : first) - 1, 0), Math.min(last + 1, x.length)];
    };
    const nearest = (angle) => {
      let low = 0;
      let high = x.length - 1;
      while (high - low > 1) { const mid = (low + high) >> 1; if (x[mid] < angle) low = mid; else high = mid; }
      return angle - x[low] < x[high] - angle ? low : high;
    };
    const reflections = curves.phases.flatMap((phase, k) => phase.positions.map((at, j) => ({ at, phase: k, hkl: phase.hkl[j] })))
      .sort((a, b) => a.at - b.at);
    const rowHeight = 11;
    const pane = (p) => (visible.difference ? Math.round(0.19 * p.height) : 0);
    const close = (p, angle) => {
      const reach = (7 * (p.view.x1 - p.view.x0)) / (p.area.right - p.area.left);
      return reflections.filter((each) => visible[`phase-${each.phase}`] && Math.abs(each.at - angle) <= reach)
        .sort((a, b) => Math.abs(a.at - angle) - Math.abs(b.at - angle)).slice(0, 4);
    };
    const plot = zoomable(host, {
      id: "plot", mostZoom: 2000, tall: true,
      label: "Diffractogram: observed, calculated and difference curves",
      help: "Drag, wheel or + and - zoom; left and right arrows move; [ and ] go from reflection to reflection; "
        + "Home or a double click shows all.",
      height: (width) => Math.round(Math.min(Math.max(0.52 * width, 380), 720, Math.max(380, 0.78 * window.innerHeight))),
      full: () => [x[0], x[x.length - 1]],
      area: (p) => ({ left: 62, right: p.width - 10, top: 8,
        bottom: p.height - 40 - pane(p) - rowHeight * curves.phases.length - 6 }),
      yRange: (x0, x1, p) => {
        const [first, last] = between(x0, x1);
        let low = Infinity;
        let high = -Infinity;
        for (let k = first; k < last; k += 1) {
          low = Math.min(low, curves.observed[k], curves.calculated[k]);
          high = Math.max(high, curves.observed[k], curves.calculated[k]);
        }
        const { to } = SCALES[scale];
        if (scale === "log") return [to(Math.max(low, 0.5) * 0.8), to(Math.max(high, 1) * 1.25)];
        const zoomed = p.zoomed();
        const bottom = zoomed ? to(Math.max(low, 0)) : Math.min(0, to(low));
        const top = to(high);
        const room = 0.04 * (top - bottom || 1);
        return [zoomed ? bottom - room : bottom, top + room];
      },
      draw: (p) => {
        const { area, colours, context: c } = p;
        const { to } = SCALES[scale];
        const [first, last] = between(p.view.x0, p.view.x1);
        const ticksTop = area.bottom + 4;
        const paneTop = ticksTop + rowHeight * curves.phases.length + 2;
        const paneBottom = paneTop + pane(p);
        const bottom = visible.difference ? paneBottom : paneTop;
        for (const [low, high] of curves.excluded) {
          c.fillStyle = colours.excluded;
          const begin = Math.max(p.px(low), area.left);
          const end = Math.min(p.px(high), area.right);
          if (end > begin) c.fillRect(begin, area.top, end - begin, bottom - area.top);
        }
        const xTicks = roundTicks(p.view.x0, p.view.x1, Math.max(p.width / 90, 3));
        frame(p, { xTicks, xLabel: "2θ / degrees", yTicks: scaledTicks(scale, p.y[0], p.y[1], 6),
          yAt: (v) => p.py(to(v)), yLabel: data.intensity + (scale === "linear" ? "" : `, ${scale} scale`), bottom });
        const curve = (values, colour, width, dash) => {
          c.strokeStyle = colour;
          c.lineWidth = width;
          c.setLineDash(dash || []);
          c.beginPath();
          let open = false;
          for (let k = first; k < last; k += 1) {
            if (k > first && x[k] - x[k - 1] > curves.gap) open = false;
            const y = p.py(to(values(k)));
            if (open) c.lineTo(p.px(x[k]), y); else { c.moveTo(p.px(x[k]), y); open = true; }
          }
          c.stroke();
          c.setLineDash([]);
        };
        within(p, area.top, area.bottom, () => {
          curves.phases.forEach((phase, k) => {
            if (visible[`phase-${k}`]) curve((j) => curves.background[j] + phase.curve[j], phase.colour, 1.1);
          });
          if (visible.background) curve((j) => curves.background[j], colours.background, 1.2, [6, 4]);
          if (visible.observed) {
            const r = Math.min(Math.max((0.35 * (area.right - area.left)) / Math.max(last - first, 1), 0.75), 3);
            c.fillStyle = colours.observed;
            for (let k = first; k < last; k += 1) {
              const y = p.py(to(curves.observed[k]));
              if (r < 1.2) c.fillRect(p.px(x[k]) - r, y - r, 2 * r, 2 * r);
              else { c.beginPath(); c.arc(p.px(x[k]), y, r, 0, 7); c.fill(); }
            }
          }
          if (visible.calculated) curve((j) => curves.calculated[j], colours.calculated, 1.3);
          c.fillStyle = colours.marked;
          c.textAlign = "center";
          c.textBaseline = "bottom";
          const labels = []; // one that would lie on another is left out; its mark stays
          for (const angle of data.marked) {
            const at = p.px(angle);
            if (at < area.left || at > area.right) continue;
            const y = Math.max(p.py(to(curves.observed[nearest(angle)])) - 6, area.top + 24);
            c.beginPath(); c.moveTo(at, y); c.lineTo(at - 4, y - 8); c.lineTo(at + 4, y - 8); c.fill();
            const x = Math.min(Math.max(at, area.left + 20), area.right - 20);
            if (labels.some(([otherX, otherY]) => Math.abs(otherX - x) < 42 && Math.abs(otherY - y) < 13)) continue;
            labels.push([x, y]);
            c.fillText(`${angle.toFixed(2)}°`, x, y - 9);
          }
        });
        within(p, ticksTop - 2, paneTop, () => {
          curves.phases.forEach((phase, k) => {
            if (!visible[`phase-${k}`]) return;
            c.strokeStyle = phase.colour;
            c.lineWidth = 1.3;
            c.beginPath();
            for (const at of phase.positions) {
              c.moveTo(p.px(at), ticksTop + rowHeight * k + 1);
              c.lineTo(p.px(at), ticksTop + rowHeight * (k + 1) - 2);
            }
            c.stroke();
          });
        });
        if (visible.difference) {
          const weighted = (k) => (curves.observed[k] - curves.calculated[k]) / curves.su[k];
          let reach = 4.5;
          for (let k = first; k < last; k += 1) reach = Math.max(reach, Math.min(1.1 * Math.abs(weighted(k)), 12));
          const at = (v) => paneBottom - ((Math.max(-reach, Math.min(reach, v)) + reach) / (2 * reach)) * (paneBottom - paneTop);
          c.fillStyle = colours.band;
          c.fillRect(area.left, at(3), area.right - area.left, at(-3) - at(3));
          c.textAlign = "right";
          c.textBaseline = "middle";
          c.fillStyle = colours.ink;
          const outer = reach < 6 ? 3 : 10;
          for (const value of [-outer, 0, outer]) c.fillText(value > 0 ? `+${value}` : String(value), area.left - 6, at(value));
          within(p, paneTop, paneBottom, () => {
            c.strokeStyle = colours.observed;
            c.lineWidth = 0.9;
            c.beginPath();
            for (let k = first; k < last; k += 1) {
              if (k === first || x[k] - x[k - 1] > curves.gap) c.moveTo(p.px(x[k]), at(weighted(k)));
              else c.lineTo(p.px(x[k]), at(weighted(k)));
            }
            c.stroke();
            c.textAlign = "left";
            c.textBaseline = "top";
            c.fillStyle = colours.faint;
            c.fillText("(observed − calculated) / su", area.left + 6, paneTop + 3);
          });
          c.strokeStyle = colours.rule;
          c.lineWidth = 1;
          line(c, [[area.left, paneTop], [area.right, paneTop]]);
        }
        if (p.cursor && p.cursor.x >= p.view.x0 && p.cursor.x <= p.view.x1) {
          c.strokeStyle = colours.accent;
          c.lineWidth = 1;
          line(c, [[p.px(p.cursor.x), area.top], [p.px(p.cursor.x), bottom]]);
          const labels = close(p, p.cursor.x).map((each) => `${curves.phases[each.phase].label} ${each.hkl}`);
          c.textBaseline = "top";
          c.fillStyle = colours.ink;
          const right = p.px(p.cursor.x) > 0.7 * p.width;
          c.textAlign = right ? "right" : "left";
          labels.forEach((text, k) => c.fillText(text, p.px(p.cursor.x) + (right ? -6 : 6), area.top + 22 + 15 * k));
        }
      },
      read: (p, angle) => {
        const k = nearest(angle);
        const weighted = (curves.observed[k] - curves.calculated[k]) / curves.su[k];
        const lines = close(p, angle).map((each) => `${curves.phases[each.phase].label} ${each.hkl} at ${each.at.toFixed(3)}°`);
        return `2θ ${x[k].toFixed(3)}°   observed ${shown(curves.observed[k])}   calculated `
          + `${shown(Number(curves.calculated[k].toPrecision(5)))}   difference/su ${weighted.toFixed(1)}`
          + (lines.length ? `   reflections: ${lines.join(", ")}` : "");
      },
      keys: (p) => {
        const hop = (direction) => () => {
          const from = p.cursor ? p.cursor.x : p.view.x0;
          const ahead = reflections.filter((each) => visible[`phase-${each.phase}`]
            && direction * (each.at - from) > 1e-6 && each.at >= x[0] && each.at <= x[x.length - 1]);
          const next = direction > 0 ? ahead[0] : ahead[ahead.length - 1];
          if (!next) return;
          if (next.at < p.view.x0 || next.at > p.view.x1) {
            const half = 0.5 * (p.view.x1 - p.view.x0);
            p.view.x0 = next.at - half;
            p.view.x1 = next.at + half;
            p.pan(0);
          }
          p.say(next.at, 0);
        };
        return { "]": hop(1), "[": hop(-1) };
      },
    });
    const scales = el("div", { class: "field", role: "radiogroup", "aria-label": "Intensity scale" }, "Scale",
      el("span", { class: "row" }, Object.keys(SCALES).map((name) => el("label", { class: "inline" }, el("input", {
        type: "radio", name: "scale", value: name, checked: name === scale, onchange: () => {
          scale = name;
          plot.view.y = null;
          plot.draw();
        },
      }), name))));
    const toggle = (key, label, colour) => {
      const box = el("input", { type: "checkbox", checked: true, "data-curve": key, onchange: () => {
        visible[key] = box.checked;
        plot.draw();
      } });
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = colour;
      return el("label", { class: "inline" }, box, swatch, named(label));
    };
    toolbar.append(scales, toggle("observed", "observed", "var(--observed)"),
      toggle("calculated", "calculated", "var(--calculated)"), toggle("background", "background", "var(--background)"),
      toggle("difference", "difference", "var(--faint)"),
      curves.phases.map((phase, k) => toggle(`phase-${k}`,
        `${phase.label} ${phase.share}${/\d/.test(phase.share) ? " %" : ""}`, phase.colour)).reduce(
        (box, node) => { box.append(node); return box; }, document.createDocumentFragment()),
      ...plot.buttons());
  }

  // A table whose cells know their heading, so that a narrow screen can show each row as a card.
  function cards(headings, rows, caption) {
    return el("div", { class: "scroll" }, el("table", { class: "cards" }, caption ? el("caption", {}, caption) : "",
      el("thead", {}, el("tr", {}, headings.map((text) => el("th", { scope: "col" }, indexed(text))))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((content, k) => el(k ? "td" : "th",
        { scope: k ? null : "row", "data-label": headings[k], class: /^(95|p$|Found|Limits|Risk)/.test(headings[k]) ? "nowrap" : null },
        content)))))));
  }
  function measure(share) {
    const fill = el("div", { class: "measure" });
    fill.style.width = `${Math.max(100 * share, 0.4)}%`;
    return fill;
  }
  function indexed(text) {
    const [, symbol, index, rest] = /^(R)_(\w+)(.*)$/.exec(text) || [];
    return symbol ? [symbol, el("sub", {}, index), rest] : text;
  }

  function scanPage() {
    const cell = (text, number) => el("td", { class: number ? "number" : null }, text);
    const absolute = data.phases.some((row) => row.absolute);
    const links = el("nav", { class: "small", "aria-label": "Scans" }, el("a", { href: data.index, id: "back" }, "All scans"),
      data.previous ? [" · ", el("a", { href: data.previous, rel: "prev", id: "previous" }, "previous")] : "",
      data.next ? [" · ", el("a", { href: data.next, rel: "next", id: "next" }, "next")] : "");
    const toolbar = el("div", { class: "bar", role: "group", "aria-label": "What the plot shows" });
    const figure = el("section", { "aria-label": "Plot" });
    const headings = ["Phase", "mass %", "95 % interval", ...(absolute ? ["of the sample"] : []), "detection limit",
      "cell, Å and degrees", "size, nm", "texture r [axis]", "R_Bragg, %"];
    const main = el("main", {},
      el("div", { class: "answer" },
        data.answer.value ? el("span", {}, [data.answer.label, data.answer.sign, ""].join(" "), el("b", {}, data.answer.value)) : "No mass ratio could be determined.",
        data.answer.interval ? el("span", {}, `95 % interval ${data.answer.interval}`) : "",
        data.alarm ? el("strong", { class: "not_met" }, data.alarm) : "",
        data.headline.map((row) => el("span", {}, `Claim ${row.claim} `, verdict(row.verdict),
          row.provisional ? el("span", { class: "undecided" }, " provisional") : ""))),
      toolbar, figure,
      data.phases.length ? [el("h2", {}, "Phases"), cards(headings, data.phases.map((row) => [
        [named(row.formula), row.alias ? [" ", el("span", { class: "faint" }, named(row.alias))] : ""], row.share, row.interval,
        ...(absolute ? [row.absolute] : []), row.detection_limit, row.cell, row.size, row.texture, row.r_bragg,
      ]), "Mass % and detection limit of the crystalline phases fitted; figures in brackets are the combined standard "
        + "uncertainty of the last digits."),
      data.notes.map((text) => el("p", { class: "small" }, text))] : "",
      data.budget.rows.length ? [el("h2", {}, "Uncertainty of the mass ratio, % of its value"), el("table", { class: "budget" },
        el("tbody", {}, data.budget.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.source),
          el("td", {}, measure(row.percent / Math.max(...data.budget.rows.map((each) => each.percent), 1e-9))), cell(row.text, true))),
        data.budget.combined ? el("tr", {}, el("th", { scope: "row" }, "combined"), el("td"), cell(data.budget.combined, true)) : "",
        data.budget.laboratory.map((row) => el("tr", {}, el("th", { scope: "row" }, el("em", {}, row.source)), el("td"),
          cell(row.text, true)))))] : "",
      el("h2", {}, "Findings"),
      data.grouped.length ? data.grouped.map((row) => el("div", { class: `finding ${row.level}` },
        el("span", { class: `level ${row.level}` }, row.level), " ", el("span", { class: "faint small" }, row.code),
        row.messages.map((text) => el("div", {}, named(text))), row.suggestion ? el("div", {}, el("em", {}, "What to do: "), named(row.suggestion)) : ""))
        : el("p", {}, "Nothing out of the ordinary was found."),
      el("p", { class: "small" }, data.agreement.map(([label, text]) => el("span", { class: "pair" },
        el("span", { class: "faint" }, indexed(label)), ` ${text} `))),
      data.unassessed ? [el("h2", {}, "Conformity with claims 1 to 10"), el("p", {}, named(data.unassessed))] : "",
      data.claims.length && !data.unassessed ? [el("h2", {}, "Conformity with claims 1 to 10"),
        cards(["No.", "Claim", "Found", "Limits", "p", "Verdict", "Risk", "Why"], data.claims.map((row) => [String(row.claim),
          row.text, row.value, row.limits, row.probability, [verdict(row.verdict), row.provisional ? " †" : ""], row.risk,
          el("span", { class: "small" }, named(row.why))])),
      el("p", { class: "small" }, data.rules.length ? `Decision rule: ${[...data.rules, data.decided].join(" ")} p: probability `
        + `of conformity of the value found. ${data.risks ? `Risk: ${data.risks} ` : ""}A dependent claim is met only with its `
        + "parents. " : "",
        data.provisional ? el("strong", { class: "undecided" }, data.provisional) : "")] : "",
      el("h2", {}, "Item, measurement and traceability"),
      el("div", { class: "facts" }, list(data.item), list(data.measurement)), list(data.trace));
    document.body.append(
      el("a", { class: "skip", href: "#plot" }, "Skip to the plot"),
      el("header", { class: "top" }, el("div", { class: "grow" }, links, el("h1", {}, named(data.name)),
        data.sample ? el("div", { class: "faint" }, named(data.sample)) : ""), themeButton()), main);
    if (data.curves) scanPlot(figure, toolbar);
    else figure.append(el("p", { class: "faint" }, data.no_plot));
    document.addEventListener("keydown", (event) => {
      if (event.target.closest && event.target.closest("input, select, canvas, textarea")) return;
      const target = { p: data.previous, n: data.next, u: data.index }[event.key];
      if (target && !event.ctrlKey && !event.metaKey && !event.altKey) window.location.href = target;
    });
  }

  document.body.dataset.page === "run" ? runPage() : scanPage();
  document.body.dataset.ready = "yes";
})();
