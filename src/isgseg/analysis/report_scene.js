"use strict";
// The 3D view of a report. The page holds plotly.js compressed, and the granules as 12 numbers each.
(async () => {
  const said = document.getElementById("scene-said");
  const place = document.getElementById("scene");
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const floats = text => new Float32Array(bytes(text).buffer);
  try {
    await load();
    draw(JSON.parse(document.getElementById("scene-data").textContent));
  } catch (error) {
    said.textContent = `The 3D view cannot be drawn here (${error.message}). It needs WebGL and a browser of 2023 or later.`;
    place.style.display = "none";
  }

  async function load() {
    const packed = document.getElementById("library");
    const stream = new Blob([bytes(packed.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
  }

  // A sphere of 12 or 42 corners and 20 or 80 faces, from an icosahedron.
  function sphere(fine) {
    const t = (1 + Math.sqrt(5)) / 2, points = [], known = new Map();
    const add = p => points.push(p.map(v => v / Math.hypot(...p))) - 1;
    for (const [a, b] of [[1, t], [-1, t], [1, -t], [-1, -t]]) { add([a, b, 0]); add([0, a, b]); add([b, 0, a]); }
    const edge = Math.min(...points.slice(1).map(p => Math.hypot(...p.map((v, n) => v - points[0][n])))) * 1.01;
    const near = (a, b) => Math.hypot(...points[a].map((v, n) => v - points[b][n])) < edge;
    // Seen from outside, corners go round one way: light falls on the outer side.
    const outward = (a, b, c) => {
      const [p, q, r] = [points[a], points[b], points[c]];
      return p[0] * (q[1] * r[2] - q[2] * r[1]) + p[1] * (q[2] * r[0] - q[0] * r[2]) + p[2] * (q[0] * r[1] - q[1] * r[0]) > 0;
    };
    let faces = [];
    for (let a = 0; a < 12; a++) for (let b = a + 1; b < 12; b++) for (let c = b + 1; c < 12; c++)
      if (near(a, b) && near(b, c) && near(a, c)) faces.push(outward(a, b, c) ? [a, b, c] : [a, c, b]);
    if (fine) {
      const middle = (a, b) => {
        const key = a < b ? `${a} ${b}` : `${b} ${a}`;
        if (!known.has(key)) known.set(key, add(points[a].map((v, n) => v + points[b][n])));
        return known.get(key);
      };
      faces = faces.flatMap(([a, b, c]) => {
        const [d, e, f] = [middle(a, b), middle(b, c), middle(a, c)];
        return [[a, d, f], [b, e, d], [c, f, e], [d, e, f]];
      });
    }
    return { points, faces };
  }

  // One mesh of the granules that `rows` lists.
  function mesh(data, rows, ball) {
    const corners = ball.points.length, x = [], y = [], z = [], i = [], j = [], k = [];
    rows.forEach((row, place) => {
      const c = data.centres.subarray(3 * row, 3 * row + 3), a = data.axes.subarray(9 * row, 9 * row + 9);
      for (const [u, v, w] of ball.points) {
        x.push(c[0] + a[0] * u + a[1] * v + a[2] * w);
        y.push(c[1] + a[3] * u + a[4] * v + a[5] * w);
        z.push(c[2] + a[6] * u + a[7] * v + a[8] * w);
      }
      for (const [p, q, r] of ball.faces) { i.push(place * corners + p); j.push(place * corners + q); k.push(place * corners + r); }
    });
    // Without the epsilons plotly.js takes small faces for none, and leaves them dark.
    return { type: "mesh3d", x, y, z, i, j, k, hoverinfo: "text", showlegend: false,
      lighting: { ambient: 0.55, diffuse: 0.7, specular: 0.15, roughness: 0.7,
        facenormalsepsilon: 0, vertexnormalsepsilon: 0 }, lightposition: { x: 1e4, y: 1e4, z: 2e4 } };
  }

  function draw(data) {
    data.centres = floats(data.centres);
    data.axes = floats(data.axes);
    const ball = sphere(data.labels.length <= 5000);
    const select = document.getElementById("colour");
    data.colours.forEach((colour, n) => select.add(new Option(colour.unit ? `${colour.name}, ${colour.unit}` : colour.name, n)));
    select.parentElement.hidden = !data.colours.length;
    const tints = ["#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#8f7fe0", "#9a9a9a"];
    const shown = document.getElementById("shown");
    data.structures.forEach((structure, n) => {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox";
      box.checked = structure.on = structure.name === "cell" || structure.name === "nucleus";
      box.addEventListener("change", () => { structure.on = box.checked; update(); });
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.borderColor = structure.colour = tints[n % tints.length];
      label.append(box, swatch, structure.name);
      shown.append(label);
    });

    function granules() {
      const colour = data.colours[select.value || 0], all = data.labels.map((_, row) => row);
      const text = row => `Granule ${data.labels[row]}` + data.colours
        .filter(other => other.values[row] !== null)
        .map(other => `<br>${other.name}: ${other.values[row]} ${other.unit}`).join("");
      const known = colour ? all.filter(row => colour.values[row] !== null) : [];
      const unknown = all.filter(row => !known.includes(row));
      const traces = [];
      const repeated = (rows, of) => rows.flatMap(row => Array(ball.points.length).fill(of(row)));
      if (known.length) {
        const sorted = known.map(row => colour.values[row]).sort((a, b) => a - b);
        const at = share => sorted[Math.round(share * (sorted.length - 1))];
        traces.push({ ...mesh(data, known, ball), intensity: repeated(known, row => colour.values[row]), hovertext: repeated(known, text),
          colorscale: "Viridis", cmin: at(0.02), cmax: at(0.98) > at(0.02) ? at(0.98) : at(0.02) + 1,
          colorbar: narrow ? { orientation: "h", thickness: 10, len: 0.8, y: 0, yanchor: "bottom", tickfont: { color: ink() } }
            : { title: { text: colour.unit }, thickness: 12, len: 0.6, tickfont: { color: ink() } } });
      }
      if (unknown.length)
        traces.push({ ...mesh(data, unknown, ball), color: "#8a8f94", hovertext: repeated(unknown, text) });
      return traces;
    }
    function surfaces() {
      return data.structures.filter(structure => structure.on).map(structure => {
        const points = structure.decoded ??= floats(structure.points), faces = structure.sides ??= new Uint16Array(bytes(structure.faces).buffer);
        const every = (values, from) => Array.from({ length: values.length / 3 }, (_, n) => values[3 * n + from]);
        return { type: "mesh3d", x: every(points, 0), y: every(points, 1), z: every(points, 2),
          i: every(faces, 0), j: every(faces, 1), k: every(faces, 2), color: structure.colour,
          opacity: structure.name === "cell" ? 0.12 : structure.name === "nucleus" ? 0.3 : 0.6, hoverinfo: "skip" };
      });
    }
    const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const ink = () => style("--ink");
    const narrow = place.clientWidth < 600, far = narrow ? 1.5 : 1;
    let camera = { center: { x: 0, y: 0, z: -0.12 }, eye: { x: 1.1 * far, y: -1.3 * far, z: 0.9 * far } };
    function layout() {
      const axis = name => ({ title: { text: `${name}, ${data.unit}`, font: { color: ink() } }, tickfont: { color: ink() },
        gridcolor: style("--rule"), zerolinecolor: style("--rule"), showbackground: false, showspikes: false });
      return { margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", font: { color: ink() }, uirevision: "kept",
        scene: { aspectmode: "data", xaxis: axis("x"), yaxis: axis("y"), zaxis: axis("z"), camera } };
    }
    const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["resetCameraLastSave3d", "hoverClosest3d"] };
    function update() {
      if (place.layout) camera = place._fullLayout.scene.camera;
      const colour = data.colours[select.value || 0], missing = colour ? colour.values.filter(value => value === null).length : 0;
      said.textContent = `${data.labels.length.toLocaleString("en")} granules.` + (missing ? ` ${missing} in grey have no such value.` : "");
      return Plotly.react(place, [...surfaces(), ...granules()], layout(), config);
    }
    select.addEventListener("change", update);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
    for (const button of document.querySelectorAll("[data-turn]"))
      button.addEventListener("click", () => {
        const { x, y } = place._fullLayout.scene.camera.eye, turn = Number(button.dataset.turn) * Math.PI / 6;
        const { z } = place._fullLayout.scene.camera.eye;
        const eye = turn ? { x: x * Math.cos(turn) - y * Math.sin(turn), y: x * Math.sin(turn) + y * Math.cos(turn), z }
          : { x: 0, y: -0.01, z: Math.hypot(x, y, z) };
        Plotly.relayout(place, { "scene.camera.eye": eye });
      });
    update().then(() => { place.dataset.drawn = "yes"; });
  }
})();
