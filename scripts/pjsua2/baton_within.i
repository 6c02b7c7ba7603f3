/* Requests within a dialog that are neither the call's own nor a REFER: each gets its answer (RFC 3261 sections 8.2.1 and
 * 11.2), never the 500 that PJSIP has for what none of its parts takes up.
 *
 *   OPTIONS      200 with what we can (Allow, Accept, Supported)
 *   INFO         200 where it is empty (a keep-alive) or a key that can be read, 400 where a key cannot, else 415 with Accept
 *   NOTIFY       481: there is no subscription (RFC 6665 section 4.1.3)
 *   all others   405 with Allow; MESSAGE too, within a dialog and without: nobody here would read it
 *
 * The module stands above the transactions, which answer what is repeated, and before PJSIP's dialogs.
 */
%{
#include <mutex>

namespace {

void baton_press(int id, char digit, bool by_info);

struct baton_line { const char *at; pj_ssize_t size; };

bool baton_is(const baton_line &text, const char *word) {
    const pj_str_t one = { (char *)text.at, text.size };
    return !pj_stricmp2(&one, word);
}

baton_line baton_trimmed(const char *from, const char *to) {
    while (from < to && (unsigned char)*from <= 0x20) ++from;
    while (to > from && (unsigned char)to[-1] <= 0x20) --to;
    const baton_line line = { from, to - from };
    return line;
}

/* A key: its character, or its number as an event (RFC 4733 section 3.2), of which 10 is * and 11 is #. 0: it is none.
 * 'f': a hook flash, which is no key. `named`: it stands behind a name; alone, 12 may be two keys. */
char baton_key_of(const baton_line &said, bool named) {
    if (said.size == 1) {
        const char one = (char)pj_toupper(said.at[0]);
        return strchr("0123456789ABCD*#", one) ? one : 0;
    }
    if (said.size != 2 || said.at[0] != '1' || said.at[1] < '0' || said.at[1] > (named ? '6' : '1')) return 0;
    return "*#ABCDf"[said.at[1] - '0'];
}

/* The key of an INFO's body, 0 where there is none or there are two. Lines of a name and a value, parted by = or a colon;
 * what is not the key (its duration) is passed over. Or the key alone; or the event as RTP has it (RFC 4733 section 2.3). */
char baton_key_in(const char *text, pj_ssize_t size, bool event) {
    if (event && size == 4 && (unsigned char)text[0] <= 16) {
        static const char EVENTS[] = "0123456789*#ABCDf";
        return EVENTS[(unsigned char)text[0]];
    }
    char found = 0;
    int bare = 0;
    for (const char *at = text, *end = text + size; at < end;) {
        const char *stop = at;
        while (stop < end && *stop != '\r' && *stop != '\n') ++stop;
        const char *mark = at;
        while (mark < stop && *mark != '=' && *mark != ':') ++mark;
        const baton_line name = baton_trimmed(at, mark), whole = baton_trimmed(at, stop);
        at = stop + 1;
        if (!whole.size) continue;
        char key;
        if (mark == stop) {
            if (++bare > 1) return 0;
            key = baton_key_of(whole, false);
        } else {
            if (!baton_is(name, "signal") && !baton_is(name, "digit") && !baton_is(name, "event")) continue;
            key = baton_key_of(baton_trimmed(mark + 1, stop), true);
        }
        if (!key || (found && found != key)) return 0;
        found = key;
    }
    return found;
}

/* A capability of ours, as a header to send. */
void baton_say(pj_pool_t *pool, pjsip_hdr *list, int kind) {
    const pjsip_hdr *ours = pjsip_endpt_get_capability(pjsua_get_pjsip_endpt(), kind, NULL);
    if (ours) pj_list_push_back(list, pjsip_hdr_clone(pool, ours));
}

void baton_say_keys(pj_pool_t *pool, pjsip_hdr *list) {
    pjsip_accept_hdr *accept = pjsip_accept_hdr_create(pool);
    accept->values[accept->count++] = pj_str((char *)"application/dtmf-relay");
    accept->values[accept->count++] = pj_str((char *)"application/dtmf");
    accept->values[accept->count++] = pj_str((char *)"audio/telephone-event");
    pj_list_push_back(list, (pjsip_hdr *)accept);
}

/* What an INFO is answered with; a key is pressed on the way. */
int baton_info(pjsip_rx_data *rdata, int call, pjsip_hdr *list) {
    static const pj_str_t ENCODED = { (char *)"Content-Encoding", 16 };
    const pjsip_msg *msg = rdata->msg_info.msg;
    const pjsip_msg_body *body = msg->body;
    if (!body || !body->len) return 200;
    const pj_str_t *type = &body->content_type.type, *sub = &body->content_type.subtype;
    const bool event = !pj_stricmp2(type, "audio") && !pj_stricmp2(sub, "telephone-event");
    const bool relay = !pj_stricmp2(type, "application") && (!pj_stricmp2(sub, "dtmf-relay") || !pj_stricmp2(sub, "dtmf"));
    if ((!event && !relay) || pjsip_msg_find_hdr_by_name(msg, &ENCODED, NULL)) {
        baton_say_keys(rdata->tp_info.pool, list);
        return 415;
    }
    const char key = baton_key_in((const char *)body->data, body->len, event);
    if (!key) return 400;
    if (key != 'f' && call >= 0) baton_press(call, key, true);
    return 200;
}

bool baton_is_method(const pjsip_method *method, const char *name) { return !pj_strcmp2(&method->name, name); }

/* Those that PJSIP's dialogs and ours answer. */
bool baton_is_the_calls(const pjsip_method *method) {
    switch (method->id) {
    case PJSIP_INVITE_METHOD: case PJSIP_ACK_METHOD: case PJSIP_BYE_METHOD: case PJSIP_CANCEL_METHOD:
    case PJSIP_REGISTER_METHOD: return true;
    case PJSIP_OPTIONS_METHOD: return false;
    default: return baton_is_method(method, "UPDATE") || baton_is_method(method, "PRACK") || baton_is_method(method, "REFER")
                    || baton_is_method(method, "SUBSCRIBE");
    }
}

int baton_answer_within(pjsip_rx_data *rdata, const pjsip_dialog *dlg, pjsip_hdr *list) {
    const pjsip_method *method = &rdata->msg_info.msg->line.req.method;
    pj_pool_t *pool = rdata->tp_info.pool;
    if (method->id == PJSIP_OPTIONS_METHOD) {
        baton_say(pool, list, PJSIP_H_ALLOW);
        baton_say(pool, list, PJSIP_H_ACCEPT);
        baton_say(pool, list, PJSIP_H_SUPPORTED);
        return 200;
    }
    if (baton_is_method(method, "INFO")) {
        const pjsua_call *call = (const pjsua_call *)dlg->mod_data[pjsua_var.mod.id];
        return baton_info(rdata, call && call->inv && !call->hanging_up ? call->index : -1, list);
    }
    if (baton_is_method(method, "NOTIFY")) return 481;
    baton_say(pool, list, PJSIP_H_ALLOW);
    return 405;
}

extern pjsip_module baton_within_module;

pj_bool_t baton_on_within(pjsip_rx_data *rdata) {
    const pjsip_method *method = &rdata->msg_info.msg->line.req.method;
    pjsip_hdr list;
    pj_list_init(&list);
    if (!rdata->msg_info.to->tag.slen) {
        if (!baton_is_method(method, "MESSAGE")) return PJ_FALSE;
        baton_say(rdata->tp_info.pool, &list, PJSIP_H_ALLOW);
        pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, 405, NULL, &list, NULL);
        return PJ_TRUE;
    }
    if (baton_is_the_calls(method)) return PJ_FALSE;
    pjsip_dialog *dlg =
        pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag, PJ_TRUE);
    if (!dlg) {  /* PJSIP would take the sender's tag for that of an endpoint which has not answered yet */
        pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, 481, NULL, NULL, NULL);
        return PJ_TRUE;
    }
    if (rdata->msg_info.cseq->cseq <= dlg->remote.cseq) {  /* RFC 3261 section 12.2.2 */
        static const pj_str_t WHY = { (char *)"Invalid CSeq", 12 };
        pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, 500, &WHY, NULL, NULL);
    } else {
        dlg->remote.cseq = rdata->msg_info.cseq->cseq;
        const int code = baton_answer_within(rdata, dlg, &list);
        pjsip_endpt_respond(pjsua_get_pjsip_endpt(), &baton_within_module, rdata, code, NULL, &list, NULL, NULL);
    }
    pjsip_dlg_dec_lock(dlg);
    return PJ_TRUE;
}

pjsip_module baton_within_module = {
    NULL, NULL, { (char *)"mod-baton-within", 16 }, -1,
    PJSIP_MOD_PRIORITY_UA_PROXY_LAYER - 1,
    NULL, NULL, NULL, NULL, &baton_on_within, NULL, NULL, NULL, NULL
};

/* What pjsua's parts have said that we can, and cannot. */
void baton_unsay(int kind, const char *word) {
    pjsip_generic_array_hdr *said =
        (pjsip_generic_array_hdr *)pjsip_endpt_get_capability(pjsua_get_pjsip_endpt(), kind, NULL);
    for (unsigned i = 0; said && i < said->count;)
        if (pj_stricmp2(&said->values[i], word)) ++i;
        else said->values[i] = said->values[--said->count];
}

pj_status_t baton_within_start() {
    baton_unsay(PJSIP_H_ALLOW, "MESSAGE");
    baton_unsay(PJSIP_H_ACCEPT, "text/plain");
    baton_unsay(PJSIP_H_ACCEPT, "application/im-iscomposing+xml");
    baton_within_module.id = -1;
    return pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_within_module);
}

/* --- keys --- */

std::mutex baton_digit_lock;
std::string baton_digit_text;

/* Some send each key twice, as RTP events and as INFO. A press of the one kind is matched by one of the other, of the same
 * key within this time: then it is no second press. */
const long long BATON_TWIN_NS = 1000000000LL;
struct baton_pressed { const void *session; char digit; bool by_info; int alone; long long at_ns; };
baton_pressed baton_presses[PJSUA_MAX_CALLS];

void baton_press(int id, char digit, bool by_info) {
    if (id < 0 || id >= PJSUA_MAX_CALLS) return;
    std::lock_guard<std::mutex> guard(baton_digit_lock);
    baton_pressed *last = &baton_presses[id];
    const void *session = pjsua_var.calls[id].inv;
    const long long now_ns = baton_now_ns();
    const bool same = last->session == session && last->digit == digit && now_ns - last->at_ns < BATON_TWIN_NS;
    if (same && last->by_info != by_info && last->alone > 0) { --last->alone; return; }
    const baton_pressed one = { session, digit, by_info, same && last->by_info == by_info ? last->alone + 1 : 1, now_ns };
    *last = one;
    char record[32];
    pj_ansi_snprintf(record, sizeof(record), "%d\x1f%c\x1e", id, digit);
    if (baton_digit_text.size() < 65536) baton_digit_text += record;
}

}  // namespace
%}
