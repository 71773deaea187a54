"""What pages say in place of codes: after something was done, and when it was refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping

SAID: Mapping[str, str] = {
    "logged_out": "You are logged out.",
    "session_ended": "Your log-in has ended. Log in again to go on.",
    "log_in_first": "Log in to see that page.",
    "activated": "Your account is active. Log in with your password.",
    "code_sent": "If there is something to send, a code is on its way. It arrives within a minute.",
    "password_set": "Your new password is set, and all log-ins have ended. Log in with it.",
    "camera_added": "The camera is added. It has no plan yet: it records once it has one.",
    "saved": "Saved.",
    "trial_started": "The trial has begun.",
    "bought": "The plan is paid. A receipt is on its way to you.",
    "cancelled": "The plan is cancelled. A confirmation with its date is on its way to you.",
    "abandoned": "What was ordered and not paid is abandoned. Nothing will be charged for it.",
    "deleted": "These recordings are deleted, for ever.",
    "kept": "This range is kept.",
    "unkept": "The kept clip is gone.",
    "shared": "The link is made. Whoever has it can watch this range until it ends.",
    "share_ended": "The link has ended. It shows nothing any more.",
    "token_made": "The camera has a new token. All links and tokens from before are void.",
    "camera_ended": "The camera is ended.",
    "closing_asked": "You have asked for the end of your account.",
    "closing_withdrawn": "Your account goes on. The request is withdrawn.",
    "consent_said": "Noted, with the date.",
    "export_asked": "The file is being made. You are told when it is there.",
    "address_asked": "A code is on its way to the new address. Enter it to have the address changed.",
    "address_changed": "The address is changed.",
    "log_in_linked": "You can log in with that account from now on. Your addresses are told.",
    "log_in_unlinked": "That way to log in is gone, and all log-ins have ended. Log in with your password.",
    "method_added": "The payment method is there.",
    "method_removed": "The payment method is gone.",
    "done": "Done.",
}
"""By the code in `?said=` of a page's address: only these, so that no link puts words into our mouth."""

REFUSED: Mapping[str, str] = {
    "bad_credentials": "There is no account with this login and password. Check both; upper and lower case matter.",
    "session_ended": "The log-in has ended, or the token is no longer good. Log in again.",
    "account_suspended": "This account is suspended. Nothing is erased by that. Ask the operator of the service.",
    "not_activated": "This account is not active yet. Enter the code that was sent to you first.",
    "agreement_not_accepted": "Read the service agreement and accept it. There may be a new version: it is linked"
    " beside the box.",
    "wrong_code": "This code is wrong, or too old. Check it, or have another one sent.",
    "no_address": "Give an e-mail address or a mobile number, or both.",
    "slow_down": "That was too often. Wait a little, then try again.",
    "forged": "This form was too old, or came from somewhere else, and nothing was done. Send it again from here.",
    "not_found": "There is no such page, or it is not yours.",
    "malformed": "What was sent can't be understood. Go back and check it.",
    "too_large": "That was too long. A form has at most 64 KiB.",
    "too_slow": "The form took too long to arrive. Send it again.",
    "operators_only": "Only operators of the service may do this.",
    "role_lacks": "Your role does not allow this.",
    "reason_needed": "Say why: it is kept in the account's history, with your name.",
    "payment_unavailable": "The payment service does not answer. Nothing is charged twice: send the form again in a"
    " minute, and see under “Payments” what became of it.",
    "payment_declined": "The payment was declined. Nothing was charged. Choose another payment method.",
    "overloaded": "There is too much to do right now. Try again in a few seconds.",
    "host_stale": "This server has lost touch with the others, and shows nothing until it is back. Try again soon.",
    "store_unavailable": "The recordings can't be reached right now. They are not lost. Try again soon.",
    "internal": "Something broke here. It is written down, and not your fault. Try again later.",
    "bad_token": "This link has ended, or never was. Whoever sent it can make another one.",
    "plan_lapsed": "The plan of this camera has ended, and with it the right to watch. A new plan brings back what has"
    " not expired by then.",
    "suspended": "This camera is suspended, so nothing plays. Nothing is erased by that. Ask the operator.",
    "terminated": "This camera was ended for good. Nothing of it plays any more.",
    "erased": "The recordings of this camera were erased. Nobody can read them any more.",
    "expired": "This was recorded too long ago: its storage time is over, and it is erased.",
    "deleted": "This was deleted, and can't be read by anyone.",
    "not_let_in": "The other side let nobody in, and nothing was changed. Try again, or log in with your password.",
    "log_in_expired": "That took too long, or was begun in another browser. Begin again.",
    "log_in_used": "This log-in was used already. Begin again.",
    "wrong_state": "This answer is not one to what you began here. Begin again.",
    "mixed_up": "This is the answer of another provider than you chose. Begin again.",
    "code_refused": "The other side does not stand by its answer. Begin again.",
    "bad_id_token": "The other side's answer can't be believed. Begin again, or log in with your password.",
    "provider_unavailable": "Nobody can log in there right now. Try again in a minute, or log in with your password.",
    "no_provider": "Nobody can log in with that here.",
    "identity_taken": "Another account here has this log-in already.",
    "identity_exists": "Your account has another log-in of that kind. Remove it first.",
    "last_log_in": "It is the only way in to your account. Set a password first: “Forgotten your password?” at the"
    " log-in sends a code.",
    "already_kept": "This range is kept already, all of it: see the kept clips of this camera.",
    "kept_bytes_used_up": "There is no room left to keep so much. Delete a kept clip that you don't need any more,"
    " or keep less.",
    "too_many_clips": "This camera has as many kept clips as it may have. Delete one that you don't need any more.",
    "not_recording": "Nothing is kept of a camera that may not record now. It needs a plan that runs.",
    "nothing_recorded": "There are no recordings in this range. Choose another one on the timeline.",
    "range_too_large": "That is too much at once. Keep it in parts, of a day or less.",
    "bad_range": "A range ends after it begins, and what is kept was recorded before now.",
    "trial_used": "Your account has had its one trial.",
    "cancel_first": "This camera has a plan that is paid. Cancel the plan first, so that what is due of it is given"
    " back.",
}
"""By code, where the detail of a refusal is written for who calls the API. Any other detail is shown as it is."""

TITLES: Mapping[int, str] = {
    400: "That was not understood",
    401: "Log in first",
    402: "Not paid",
    403: "Not allowed",
    404: "Not here",
    405: "Not like this",
    408: "Too slow",
    409: "Not possible now",
    410: "Gone",
    413: "Too long",
    415: "Not a form",
    422: "Not possible like this",
    429: "Too often",
    500: "Something broke",
    503: "Not now",
}


def refused(code: str, detail: str) -> str:
    """A sentence for people: what is the matter, and what to do."""
    said = REFUSED.get(code, detail)
    said = said[:1].upper() + said[1:]
    return said if said.endswith((".", "!", "?")) else f"{said}."
