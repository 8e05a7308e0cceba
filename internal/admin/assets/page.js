"use strict";
// Asks for the fragment every two seconds and puts it in place of what is shown, part by part and only where it
// differs, so that a selection or an opened table outlives an update.
(() => {
  const link = document.getElementById("link");
  let asking = false;

  function say(state, text) {
    if (link.dataset.link === state) return;
    link.dataset.link = state;
    link.textContent = text;
    document.body.classList.toggle("stale", state === "lost");
  }

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html");
    for (const part of next.querySelectorAll("[data-part]")) {
      const shown = document.getElementById(part.id);
      if (shown && !shown.isEqualNode(part)) shown.replaceChildren(...part.childNodes);
    }
    document.title = document.querySelector("[data-title]").dataset.title + " · unrestrict-worker";
  }

  async function ask() {
    if (document.hidden || asking) return; // tabs that nobody looks at ask for nothing
    asking = true;
    try {
      const answer = await fetch("fragment", { signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.status);
      show(await answer.text());
      say("live", "Connected");
    } catch {
      say("lost", "Connection lost at " + new Date().toISOString().slice(11, 19) + " UTC, trying again");
    } finally {
      asking = false;
    }
  }

  document.addEventListener("visibilitychange", ask);
  setInterval(ask, 2000);
  ask();
})();
