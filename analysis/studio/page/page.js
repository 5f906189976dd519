// The page outside of a notebook: messages go to the server that sent it.
import studio from "/studio.js";

async function ask(message) {
  const answer = await fetch("/ask", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(message),
  });
  return answer.json();
}

studio.render({ model: { ask }, el: document.getElementById("studio") });
