"use strict";
/* Surfaces on a canvas: quads sorted from back to front, turned by pointer or keys. Pointing at the
   surface, or at the same plane drawn from above beside it, reads the loss and marks the place on both. */
for (const canvas of document.querySelectorAll("canvas.surface")) {
  const box = canvas.parentElement;
  const data = JSON.parse(box.querySelector("script").textContent);
  const note = box.querySelector(".note");
  const help = note.textContent;
  const [nx, ny] = [data.x.length, data.y.length];
  const x0 = data.x[0], x1 = data.x[nx - 1], y0 = data.y[0], y1 = data.y[ny - 1];
  const above = box.parentElement.querySelector("svg"), frame = data.frame, limits = data.limits;
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ r: 4, fill: "#d55e00", stroke: "#fff", "stroke-width": 1.2, visibility: "hidden" }))
    ring.setAttribute(name, value);
  above.append(ring);
  let spot = null;
  const widest = Math.max(x1 - x0, y1 - y0);
  let turn = -0.9, tilt = 0.62, zoom = 1;
  const style = () => getComputedStyle(document.documentElement);
  const place = (x, y, h) => {
    const u = (x - (x0 + x1) / 2) / widest * 2, v = (y - (y0 + y1) / 2) / widest * 2, w = h - 0.5;
    const a = u * Math.cos(turn) - v * Math.sin(turn), b = u * Math.sin(turn) + v * Math.cos(turn);
    return [a, b * Math.sin(tilt) + w * 1.1 * Math.cos(tilt), b * Math.cos(tilt) - w * Math.sin(tilt)];
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const scale = Math.min(width, height) * 0.36 * zoom;
    const at = (p) => [width / 2 + p[0] * scale, height * 0.52 - p[1] * scale];
    const ink = style().getPropertyValue("--ink").trim(), faint = style().getPropertyValue("--faint").trim();
    g.lineJoin = "round"; g.font = "12px " + style().getPropertyValue("--font");
    const floor = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(([x, y]) => at(place(x, y, -0.02)));
    g.strokeStyle = faint; g.lineWidth = 1; g.beginPath();
    floor.forEach(([x, y], k) => (k ? g.lineTo(x, y) : g.moveTo(x, y))); g.closePath(); g.stroke();
    const points = [];
    for (let j = 0; j < ny; j++) for (let i = 0; i < nx; i++) {
      const h = data.heights[j * nx + i];
      points.push(h === null ? null : place(data.x[i], data.y[j], h));
    }
    const quads = [];
    for (let j = 0; j < ny - 1; j++) for (let i = 0; i < nx - 1; i++) {
      const corners = [j * nx + i, j * nx + i + 1, (j + 1) * nx + i + 1, (j + 1) * nx + i];
      if (corners.some((k) => points[k] === null)) continue;
      const depth = corners.reduce((sum, k) => sum + points[k][2], 0);
      const h = corners.reduce((sum, k) => sum + data.heights[k], 0) / 4;
      quads.push([depth, corners, h]);
    }
    const lift = 0.012;
    const along = data.path.map(([x, y], k) => place(x, y, (data.along[k] ?? 0) + lift));
    for (let k = 0; k + 1 < along.length && data.along.length; k++)
      quads.push([2 * (along[k][2] + along[k + 1][2]) - 0.12, [along[k], along[k + 1]], null]);
    quads.sort((p, q) => q[0] - p[0]);
    for (const [, corners, h] of quads) {
      g.beginPath();
      if (h === null) {
        const [p, q] = corners.map(at);
        g.moveTo(...p); g.lineTo(...q); g.strokeStyle = "#d55e00"; g.lineWidth = 2.2; g.stroke();
        continue;
      }
      corners.forEach((k, n) => (n ? g.lineTo(...at(points[k])) : g.moveTo(...at(points[k]))));
      g.closePath();
      g.fillStyle = data.colors[Math.max(0, Math.min(63, Math.round(h * 63)))];
      g.strokeStyle = "rgba(255,255,255,.22)"; g.lineWidth = 0.5; g.fill(); g.stroke();
    }
    g.fillStyle = ink; g.textAlign = "center";
    g.fillText(data.names[0], ...at(place((x0 + x1) / 2, y0 - 0.12 * widest, -0.05)));
    g.fillText(data.names[1], ...at(place(x1 + 0.14 * widest, (y0 + y1) / 2, -0.05)));
    if (spot !== null && points[spot] !== null) {
      const [a, b] = at(points[spot]);
      g.beginPath(); g.arc(a, b, 4.5, 0, 2 * Math.PI); g.fillStyle = "#d55e00"; g.fill();
      g.strokeStyle = "#fff"; g.lineWidth = 1.5; g.stroke();
    }
    canvas.screen = points.map((p) => (p === null ? null : [...at(p), p[2]]));
  };
  const point = (event) => {
    const area = canvas.getBoundingClientRect();
    let best = null, nearest = 18 * 18;
    canvas.screen.forEach((p, k) => {
      if (p === null) return;
      const d = (p[0] - event.clientX + area.left) ** 2 + (p[1] - event.clientY + area.top) ** 2;
      if (d < nearest - 1e-9 && (best === null || p[2] <= canvas.screen[best][2] + 0.3)) { nearest = d; best = k; }
    });
    tell(best);
  };
  const tell = (best) => {
    const number = (v) => Number(v).toPrecision(3);
    if (best === spot) return;
    spot = best;
    ring.setAttribute("visibility", best === null ? "hidden" : "visible");
    note.textContent = help;
    if (best !== null) {
      const x = data.x[best % nx], y = data.y[Math.floor(best / nx)], loss = data.losses[best];
      note.textContent = `x = ${number(x)}, y = ${number(y)}: ` + (loss === null ? "not finite" : `loss ${number(loss)}`);
      const view = above.viewBox.baseVal;
      const u = (x - limits[0]) / (limits[1] - limits[0]), v = (limits[3] - y) / (limits[3] - limits[2]);
      ring.setAttribute("cx", view.x + view.width * (frame[0] + u * (frame[2] - frame[0])));
      ring.setAttribute("cy", view.y + view.height * (frame[1] + v * (frame[3] - frame[1])));
    }
    draw();
  };
  const nearest = (values, value) => values.reduce((best, v, k) => (Math.abs(v - value) < Math.abs(values[best] - value) ? k : best), 0);
  above.addEventListener("pointermove", (e) => {
    const area = above.getBoundingClientRect();
    const u = ((e.clientX - area.left) / area.width - frame[0]) / (frame[2] - frame[0]);
    const v = ((e.clientY - area.top) / area.height - frame[1]) / (frame[3] - frame[1]);
    if (u < 0 || u > 1 || v < 0 || v > 1) { tell(null); return; }
    const i = nearest(data.x, limits[0] + u * (limits[1] - limits[0])), j = nearest(data.y, limits[3] - v * (limits[3] - limits[2]));
    tell(j * nx + i);
  });
  above.addEventListener("pointerleave", () => tell(null));
  canvas.addEventListener("pointerleave", () => tell(null));
  let held = null;
  canvas.addEventListener("pointerdown", (e) => { held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (held === null) { point(e); return; }
    turn += (e.clientX - held[0]) * 0.01;
    tilt = Math.max(0.05, Math.min(1.5, tilt + (e.clientY - held[1]) * 0.01));
    held = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener("wheel", (e) => {
    if (!e.ctrlKey) return;
    e.preventDefault(); zoom = Math.max(0.5, Math.min(4, zoom * Math.exp(-e.deltaY * 0.002))); draw();
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[e.key];
    if (!step) return;
    e.preventDefault(); turn += step[0]; tilt = Math.max(0.05, Math.min(1.5, tilt + step[1])); draw();
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}
