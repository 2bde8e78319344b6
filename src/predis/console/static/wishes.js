// What a person may ask of a rollout: a button for each that its state can grant, and a dialog that says what will happen.

import { h } from "./dom.js";
import { ask, asked, dialog, overFreeze, textField } from "./dialog.js";
import { share } from "./format.js";

const LABEL = { pause: "Pause", resume: "Resume", approve: "Approve", reject: "Reject", promote: "Promote", abort: "Abort" };
const SERIOUS = new Set(["abort", "reject"]);
const PRIMARY = new Set(["approve", "resume"]);

const who = ({ where }) => (where ? "every request of its segment" : "every request");
const back = (rollout) => `v${rollout.baseline} answers ${who(rollout)} again at once, and the rollout has ended. v${rollout.candidate} stays registered.`;
const stays = (rollout) => `Shares stay as they are: ${share(rollout.share)} for v${rollout.candidate}.`;

const EFFECT = {
  pause: (rollout) => `${stays(rollout)} The gates go on looking and still turn it back.`,
  resume: (rollout) => `It goes on at ${share(rollout.share)} for v${rollout.candidate}; the present step starts anew.`,
  approve: (rollout) => (rollout.step < 0 ? `v${rollout.candidate} gets its first traffic.` : next(rollout)),
  reject: back,
  promote: (rollout) => `v${rollout.candidate} answers ${who(rollout)} now, whatever the gates still wait for. The rollout has ended then; the way back is another rollout.`,
  abort: (rollout) => (rollout.baseline === null ? "The rollout ends, and nothing answers." : back(rollout)),
};

function next({ strategy, steps, step, candidate }) {
  const share_ = strategy === "canary" ? steps[step + 1] : undefined;
  return share_ === undefined ? `v${candidate} answers everything; the rollout has ended then.` : `The next step begins: v${candidate} gets ${share(share_)}.`;
}

/** The buttons. `wishes` is the server's table: wish -> states that can grant it. */
export function wishButtons(rollout, wishes, view) {
  const possible = Object.keys(LABEL).filter((wish) => wishes?.[wish]?.includes(rollout.state));
  if (!possible.length) return null;
  return h("div", { class: "buttons", role: "group", "aria-label": `Rollout ${rollout.id}` }, possible.map((wish) =>
    h("button", {
      key: wish, type: "button", class: SERIOUS.has(wish) ? "danger" : PRIMARY.has(wish) ? "primary" : null,
      onclick: () => ask(view, "wish", { wish, rollout }),
    }, LABEL[wish])));
}

export function wishDialog(view, client) {
  const { wish, rollout, draft } = asked(view);
  return dialog(view, {
    title: `${LABEL[wish]} rollout ${rollout.id}?`, action: LABEL[wish], serious: SERIOUS.has(wish),
    submit: async () => {
      const body = { note: draft.note ?? "", override_freeze: Boolean(draft.override_freeze) };
      await client.send("POST", `/api/v1/rollouts/${rollout.id}/${wish}`, body);
    },
  },
  h("p", null, EFFECT[wish](rollout)),
  textField(view, "note", "Note (optional)", { hint: "Kept in the audit log beside your name.", maxlength: 1000 }),
  overFreeze(view));
}
