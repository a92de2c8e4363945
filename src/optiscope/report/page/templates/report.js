(function () {
  "use strict";
  var hidden = new Set();
  var sheet = document.getElementById("hidden-algorithms");
  var all = document.getElementById("show-all");
  var buttons = document.querySelectorAll("button[data-toggle]");
  function rules(faded) {
    var text = "";
    hidden.forEach(function (number) {
      text += '[data-alg="' + number + '"]{display:none}';
    });
    if (faded !== undefined && !hidden.has(faded)) {
      text += 'svg [data-alg]:not([data-alg="' + faded + '"]){opacity:.12}';
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
})();
