(function () {
  "use strict";
  var hidden = new Set();
  var sheet = document.getElementById("hidden-algorithms");
  var all = document.getElementById("show-all");
  var buttons = document.querySelectorAll("button[data-toggle]");
  function rules(pointed) {
    var text = "";
    hidden.forEach(function (number) {
      text += '[data-alg="' + number + '"]{display:none}';
    });
    if (pointed !== undefined && !hidden.has(pointed)) {
      text += 'svg [data-alg]:not([data-alg="' + pointed + '"]){opacity:.12}';
      text += '.many svg [data-alg="' + pointed + '"][data-part="band"]{opacity:1}';
    }
    sheet.textContent = text;
  }
  function show() {
    buttons.forEach(function (button) {
      button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.toggle)));
    });
    all.hidden = hidden.size === 0;
    rules();
  }
  buttons.forEach(function (button) {
    var number = button.dataset.toggle;
    button.addEventListener("click", function () {
      if (!hidden.delete(number)) { hidden.add(number); }
      show();
    });
    button.addEventListener("mouseenter", function () { rules(number); });
    button.addEventListener("mouseleave", function () { rules(); });
  });
  all.addEventListener("click", function () { hidden.clear(); show(); });

  // A link to a folded problem opens it.
  function open() {
    var target = location.hash && document.getElementById(location.hash.slice(1));
    var fold = target && target.querySelector("details");
    if (fold) { fold.open = true; target.scrollIntoView(); }
  }
  window.addEventListener("hashchange", open);
  open();
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("section.problem > details").forEach(function (fold) { fold.open = true; });
  });

  // Every figure can be saved as a file of its own, in its light colors.
  var light = { ink: "#1a1a1a", faint: "#5c5c5c", grid: "#e3e3e3", shade: "#f1d9d2", paper: "#ffffff", font: "sans-serif" };
  function standalone(svg) {
    var copy = svg.cloneNode(true), from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
    var names = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "stroke-opacity", "font-size", "font-weight", "text-anchor", "display"];
    Object.keys(light).forEach(function (name) { svg.style.setProperty("--" + name, light[name]); });
    from.forEach(function (element, place) {
      var style = getComputedStyle(element);
      to[place].removeAttribute("class");
      to[place].setAttribute("style", names.map(function (n) { return n + ":" + style.getPropertyValue(n); }).join(";") + (element.tagName === "text" ? ";font-family:sans-serif" : ""));
    });
    Object.keys(light).forEach(function (name) { svg.style.removeProperty("--" + name); });
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    return new XMLSerializer().serializeToString(copy);
  }
  document.querySelectorAll(".panel[data-file]").forEach(function (panel) {
    var button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "SVG";
    button.title = "Save this figure as an SVG file";
    button.addEventListener("click", function () {
      var link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([standalone(panel.querySelector("svg"))], { type: "image/svg+xml" }));
      link.download = panel.dataset.file + ".svg";
      link.click();
      URL.revokeObjectURL(link.href);
    });
    panel.appendChild(button);
  });

  // The overview as Markdown or LaTeX.
  function cells(row) {
    return Array.from(row.children).map(function (cell) {
      var copy = cell.cloneNode(true), letters = copy.querySelector("sup");
      var mark = letters ? letters.textContent : "";
      if (letters) { letters.remove(); }
      return { text: copy.textContent.trim(), letters: mark, bold: cell.classList.contains("best") };
    });
  }
  function markdown(rows) {
    var lines = rows.map(function (row) {
      return "| " + row.map(function (c) {
        var text = c.text.replace(/\|/g, "\\|");
        return (c.bold ? "**" + text + "**" : text) + (c.letters ? " " + c.letters : "");
      }).join(" | ") + " |";
    });
    lines.splice(1, 0, "|" + rows[0].map(function (_, k) { return k ? " ---: |" : " --- |"; }).join(""));
    return lines.join("\n");
  }
  function latex(rows) {
    function escape(text) {
      return text.replace(/[\\{}$&#^_%~]/g, function (c) {
        return { "\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}" }[c] || "\\" + c;
      }).replace(/±/g, "$\\pm$").replace(/–/g, "--");
    }
    var body = rows.map(function (row) {
      return row.map(function (c) {
        var text = escape(c.text);
        return (c.bold ? "\\textbf{" + text + "}" : text) + (c.letters ? "$^{" + c.letters + "}$" : "");
      }).join(" & ") + " \\\\";
    });
    body.splice(1, 0, "\\midrule");
    return "\\begin{tabular}{l" + "r".repeat(rows[0].length - 1) + "}\n\\toprule\n" + body.join("\n") + "\n\\bottomrule\n\\end{tabular}";
  }
  document.querySelectorAll(".actions[data-for]").forEach(function (box) {
    box.hidden = false;
    box.addEventListener("click", function (event) {
      var kind = event.target.dataset.copy;
      if (!kind) { return; }
      var rows = Array.from(document.getElementById(box.dataset.for).rows).map(cells);
      var text = kind === "latex" ? latex(rows) : markdown(rows);
      var words = event.target.textContent;
      function done() {
        event.target.textContent = "Copied";
        setTimeout(function () { event.target.textContent = words; }, 1500);
      }
      function shown() {
        var area = document.createElement("textarea");
        area.value = text;
        document.body.appendChild(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        done();
      }
      if (navigator.clipboard && window.isSecureContext) { navigator.clipboard.writeText(text).then(done, shown); } else { shown(); }
    });
  });
})();
