// Keys, the theme, and what a screen reader is told. Every key presses something that can also be clicked.
"use strict";

const typing = (element) => element.matches("input:not([type=radio]), textarea, select");
const visible = (element) => element.getClientRects().length > 0 && !element.disabled;
const keyed = (key) => [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key && visible(one));

function step(by) {
  const links = [...document.querySelectorAll("main .row-link")].filter(visible);
  if (!links.length) return;
  const place = links.indexOf(document.activeElement);
  const to = place < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(place + by, 0), links.length - 1);
  links[to].focus();
  links[to].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && target.matches("textarea")) {
    event.preventDefault();
    const save = target.form.querySelector("#save-note");
    target.form.requestSubmit(save || undefined);
    target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (typing(target)) return target.blur();
    const ups = [...document.querySelectorAll("main [data-up]"), ...document.querySelectorAll("header [data-up]")];
    const up = ups.find(visible);
    if (up && up.href !== location.href) up.click();
    return;
  }
  if (typing(target) || event.repeat && "hnuydz".includes(event.key)) return;
  const found = keyed(event.key);
  if (found) {
    event.preventDefault();
    if (typing(found)) found.focus();
    else found.click();
  } else if (event.key === "j" || event.key === "k") {
    event.preventDefault();
    step(event.key === "j" ? 1 : -1);
  }
});

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button, a");
  if (!pressed) return;
  if (pressed.id === "help") document.getElementById("keys").showModal();
  if (pressed.id === "theme") turn();
  if (pressed.hasAttribute("data-reload")) {
    event.preventDefault();
    location.reload();
  }
  if (pressed.dataset.says) document.getElementById("said").textContent = pressed.dataset.says;
});

function turn() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `recontext_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
}

// Facets lie beside the list where there is room, and are folded above it where there is none.
const narrow = matchMedia("(max-width: 60rem)");
const fold = () => document.querySelectorAll("details.facets").forEach((one) => { one.open = !narrow.matches; });
fold();
narrow.addEventListener("change", fold);

document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// Another candidate came in the place of the old one: it is read from its top.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id === "main" || event.detail.target?.id === "main") {
    scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
  }
});
