"use strict";
// Fetches this page again and puts in what differs, so that neither the place on the page nor a screen reader is lost.
(() => {
  const every = 1000, everyHidden = 15000, patience = 4000;
  const lost = document.getElementById("lost");
  let since = new Date(), timer = 0, asking = false;

  const take = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    const parts = page.querySelectorAll("[data-part]");
    if (parts.length === 0) throw new Error("no status page");
    for (const part of parts) {
      const here = document.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!here || here.innerHTML === part.innerHTML) continue;
      if (part.dataset.class) here.className = part.dataset.class;
      here.replaceChildren(...part.childNodes);
    }
    document.title = page.title;
  };

  const ask = async () => {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(patience) });
      if (!answer.ok) throw new Error(answer.status);
      take(await answer.text());
      since = new Date();
      lost.hidden = true;
      document.body.classList.remove("old");
    } catch {
      if (lost.hidden) {
        const at = since.toISOString().slice(0, 19).replace("T", " ");
        lost.textContent = `! No answer from this host since ${at} UTC. What stands below is old. It is asked again.`;
        lost.hidden = false;
        document.body.classList.add("old");
        document.title = `NO ANSWER · ${document.title}`;
      }
    }
    asking = false;
    timer = setTimeout(ask, document.hidden ? everyHidden : every);
  };

  document.getElementById("every").textContent = "1 s";
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  timer = setTimeout(ask, every);
})();
