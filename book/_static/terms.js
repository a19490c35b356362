// Shows the meaning of a term (its `title`) beside the pointer or the keyboard's focus; Escape hides it.
document.addEventListener("DOMContentLoaded", () => {
  const tip = Object.assign(document.createElement("div"), { id: "term-tip", hidden: true });
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  const hide = () => (tip.hidden = true);
  const show = (term) => {
    tip.textContent = term.dataset.meaning;
    tip.hidden = false;
    const at = term.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - own.width - 8);
    const below = at.bottom + own.height + 8 < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? at.bottom + 4 : at.top - own.height - 4}px`;
  };
  for (const term of document.querySelectorAll("a.term")) {
    term.dataset.meaning = term.title;
    term.removeAttribute("title");
    term.setAttribute("aria-describedby", "term-tip");
    term.addEventListener("mouseenter", () => show(term));
    term.addEventListener("focus", () => show(term));
    term.addEventListener("mouseleave", hide);
    term.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("scroll", hide, { passive: true });
});
