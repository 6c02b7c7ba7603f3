/* Baton's additions to pjsua2's SWIG interface: a tap on SIP messages and cheap accessors.
 *
 * The tap is a PJSIP module next to the transport layer. It notes every INVITE sent or received, every BYE and CANCEL
 * received and every response to INVITE received, with CLOCK_MONOTONIC nanoseconds. It is there because pjsua2 hides what
 * a meter needs: the instant an INVITE is handed to the transport, the first 100, the Reason header of a BYE, and a 2xx
 * that crosses our own CANCEL (pjsua2 answers that one with ACK and BYE and tells nobody). What it does not believe
 * (baton_dialogs.i) it drops, and so PJSIP acts on nothing that the meter did not see.
 * baton_tap_drain() returns and forgets what was noted: records end in 0x1e, fields are parted by 0x1f:
 *   ns, direction (R or T), method, status (0: a request), Call-ID, tag, To tag, reason phrase, Reason header.
 * `tag` is our own of the dialog, in lower case; of an INVITE that begins one the sender's. Keys are whole, however long.
 * When nobody drains, the newest records are dropped and counted above BATON_TAP_LIMIT bytes.
 *
 * The commands (batonDial and the like) do in one crossing from Python what took twenty: every attribute of a parameter
 * object is a proxy made and dropped. Headers come as one text: name, 0x1f, value, 0x1e, and so on.
 *
 * The accessors replace Call.getInfo(), which formats a dozen strings; baton_quiet() unhooks pjsua2 callbacks that copy
 * whole messages for the default no-op handlers, and lets onCallState through for ended calls only (the tap tells the rest).
 */
%module(directors="1") pjsua2
%{
#include "pjsua2.hpp"
#include <pjsua-lib/pjsua_internal.h>
#include <malloc.h>
#include <time.h>

namespace {

const long long BATON_SECOND = 1000000000LL;

long long baton_now_ns() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * BATON_SECOND + now.tv_nsec;
}

const size_t BATON_TAP_LIMIT = 16u << 20;
std::string baton_records;
unsigned long baton_dropped = 0;
void (*baton_state_cb)(pjsua_call_id, pjsip_event *) = NULL;

/* What people read: bounded. */
void baton_put_words(const pj_str_t *s) {
    for (pj_ssize_t i = 0; s && i < s->slen && i < 240; ++i) {
        char c = s->ptr[i];
        baton_records.push_back((c >= 0 && c < 0x20) ? ' ' : c);
    }
}

/* What is looked up by: never cut, never changed. baton_keys_are_legal has seen to it that no separator is in it. */
void baton_put_key(const pj_str_t *s) { if (s && s->slen > 0) baton_records.append(s->ptr, s->slen); }

/* Our own tag; PJSIP compares tags without regard to case. */
void baton_put_own(const pj_str_t *s) {
    for (pj_ssize_t i = 0; s && i < s->slen; ++i) baton_records.push_back((char)pj_tolower(s->ptr[i]));
}

/* Our tag of the dialog that a BYE or CANCEL is for, NULL where it is for none: a BYE counts within a dialog of ours (both
 * tags), a CANCEL for an INVITE that we are answering (its branch). PJSIP refuses any other, and so do the books. */
const pj_str_t *baton_own_tag(pjsip_rx_data *rdata) {
    if (!rdata || !rdata->msg_info.to || !rdata->msg_info.from || !rdata->msg_info.cid || !rdata->msg_info.via) return NULL;
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_BYE_METHOD)
        return pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag, PJ_FALSE)
               ? &rdata->msg_info.to->tag : NULL;
    pj_str_t key;
    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAS, pjsip_get_invite_method(), rdata) != PJ_SUCCESS)
        return NULL;
    pjsip_transaction *tsx = pjsip_tsx_layer_find_tsx(&key, PJ_FALSE);
    const pjsip_dialog *dlg = tsx ? pjsip_tsx_get_dlg(tsx) : NULL;
    return dlg ? &dlg->local.info->tag : NULL;
}

void baton_note(char direction, pjsip_msg *msg, pjsip_rx_data *rdata) {
    const pjsip_cseq_hdr *cseq = (const pjsip_cseq_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CSEQ, NULL);
    const pjsip_cid_hdr *cid = (const pjsip_cid_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CALL_ID, NULL);
    const pjsip_from_hdr *from = (const pjsip_from_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_FROM, NULL);
    const pjsip_to_hdr *to = (const pjsip_to_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_TO, NULL);
    if (!cseq || !cid || !from || !to) return;
    const bool request = msg->type == PJSIP_REQUEST_MSG;
    const pjsip_method_e id = cseq->method.id;
    const bool received = direction == 'R';
    if (request ? !(id == PJSIP_INVITE_METHOD || (received && (id == PJSIP_BYE_METHOD || id == PJSIP_CANCEL_METHOD)))
                : !(received && id == PJSIP_INVITE_METHOD))
        return;
    const bool begins = request && received && id == PJSIP_INVITE_METHOD && !to->tag.slen;
    const pj_str_t *own = received && request ? &to->tag : &from->tag;
    if (request && received && id != PJSIP_INVITE_METHOD && !(own = baton_own_tag(rdata))) return;
    if (baton_records.size() > BATON_TAP_LIMIT) { ++baton_dropped; return; }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char head[64];
    pj_ansi_snprintf(head, sizeof(head), "%lld\x1f%c\x1f", (long long)now.tv_sec * 1000000000LL + now.tv_nsec, direction);
    baton_records += head;
    baton_put_words(&cseq->method.name);
    pj_ansi_snprintf(head, sizeof(head), "\x1f%d\x1f", request ? 0 : msg->line.status.code);
    baton_records += head;
    baton_put_key(&cid->id);
    baton_records.push_back('\x1f');
    if (begins) baton_put_key(&from->tag);
    else baton_put_own(own);
    baton_records.push_back('\x1f');
    baton_put_key(&to->tag);
    baton_records.push_back('\x1f');
    if (!request) baton_put_words(&msg->line.status.reason);
    baton_records.push_back('\x1f');
    static const pj_str_t REASON = { (char *)"Reason", 6 };
    const pjsip_generic_string_hdr *why =
        (const pjsip_generic_string_hdr *)pjsip_msg_find_hdr_by_name(msg, &REASON, NULL);
    if (why) baton_put_words(&why->hvalue);
    baton_records.push_back('\x1e');
}

bool baton_keys_are_legal(pjsip_rx_data *rdata);
enum baton_answer { BATON_TAKE, BATON_NOBODYS, BATON_DROP };
baton_answer baton_judge_answer(pjsip_rx_data *rdata);
bool baton_invite_leaves(const pjsip_tx_data *tdata);
std::string baton_own(const pj_str_t *tag);
void baton_hand_request(const pjsip_tx_data *tdata, bool first);
pj_status_t baton_hand_response(pjsip_tx_data *tdata);
void baton_hand_over(const std::string &tag);
void baton_hand_refused(const pjsip_rx_data *rdata);
void baton_hand_dialog(const pjsua_call *call);
void baton_left_acknowledged(const pjsip_rx_data *rdata);

pj_bool_t baton_on_rx_request(pjsip_rx_data *rdata) {
    if (!baton_keys_are_legal(rdata)) {
        if (rdata->msg_info.msg->line.req.method.id != PJSIP_ACK_METHOD)
            pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, PJSIP_SC_BAD_REQUEST, NULL, NULL, NULL);
        return PJ_TRUE;
    }
    baton_note('R', rdata->msg_info.msg, rdata);
    const pjsip_method_e id = rdata->msg_info.msg->line.req.method.id;
    if (id == PJSIP_ACK_METHOD) baton_left_acknowledged(rdata);
    else if (id == PJSIP_BYE_METHOD && baton_own_tag(rdata)) baton_hand_over(baton_own(&rdata->msg_info.to->tag));
    return PJ_FALSE;
}

pj_bool_t baton_on_rx_response(pjsip_rx_data *rdata) {
    if (!baton_keys_are_legal(rdata)) return PJ_TRUE;
    const baton_answer found = baton_judge_answer(rdata);
    if (found == BATON_TAKE) {
        baton_note('R', rdata->msg_info.msg, rdata);
        if (rdata->msg_info.msg->line.status.code >= 300) baton_hand_refused(rdata);
    }
    return found == BATON_DROP;
}

pj_status_t baton_on_tx_request(pjsip_tx_data *tdata) {
    baton_hand_request(tdata, baton_invite_leaves(tdata));
    baton_note('T', tdata->msg, NULL);
    return PJ_SUCCESS;
}

pjsip_module baton_tap_module = {
    NULL, NULL, { (char *)"mod-baton-tap", 13 }, -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 1,
    NULL, NULL, NULL, NULL, &baton_on_rx_request, &baton_on_rx_response, &baton_on_tx_request, &baton_hand_response, NULL
};

void baton_headers(const std::string &text, pj::SipTxOption &option) {
    size_t at = 0;
    while (at < text.size()) {
        const size_t middle = text.find('\x1f', at), end = text.find('\x1e', at);
        if (middle == std::string::npos || end == std::string::npos || middle > end) return;
        pj::SipHeader header;
        header.hName = text.substr(at, middle - at);
        header.hValue = text.substr(middle + 1, end - middle - 1);
        option.headers.push_back(header);
        at = end + 1;
    }
}

void baton_port_turn(int account);
bool baton_is_leaving(int id);
void baton_port_next(int account) { baton_port_turn(account); }

void baton_on_call_state(pjsua_call_id call_id, pjsip_event *e) {
    const pjsua_call *call = &pjsua_var.calls[call_id];
    baton_hand_dialog(call);
    if (call->hanging_up || !call->inv || call->inv->state == PJSIP_INV_STATE_DISCONNECTED)
        (*baton_state_cb)(call_id, e);
}

}  // namespace
%}

%include "../pjsua2.i"
%include "baton_whole.i"
%include "baton_dialogs.i"
%include "baton_left.i"
%include "baton_within.i"
%include "baton_gate.i"
%include "baton_media.i"
%include "baton_where.i"
%include "baton_trace.i"

%extend pj::Call {
    /* makeCall with audio only, our Call-ID, our From (empty: the account's) and headers. Throws pj::Error. */
    void batonDial(const std::string &uri, const std::string &call_id, const std::string &from,
                   const std::string &headers, int account) throw(pj::Error) {
        pj::CallOpParam param(true);
        param.opt.audioCount = 1;
        param.opt.videoCount = 0;
        param.opt.textCount = 0;
        param.opt.customCallId = call_id;
        param.txOption.localUri = from;
        baton_port_next(account);
        baton_headers(headers, param.txOption);
        $self->makeCall(uri, param);
    }
    /* Answer an INVITE with a status code. Throws pj::Error. */
    void batonRespond(int code, const std::string &headers) throw(pj::Error) {
        pj::CallOpParam param;
        param.statusCode = (pjsip_status_code)code;
        baton_headers(headers, param.txOption);
        $self->answer(param);
    }
    /* CANCEL or BYE; nothing where PJSIP's own BYE is under way. Throws pj::Error. */
    void batonHangUp(const std::string &headers) throw(pj::Error) {
        if (baton_is_leaving($self->getId())) return;
        pj::CallOpParam param;
        baton_headers(headers, param.txOption);
        $self->hangup(param);
    }
}

%inline %{
/* Start noting messages. To be called once after libInit. Returns a pj_status_t. */
int baton_tap_start() {
    baton_records.clear();
    baton_dropped = 0;
    baton_tap_module.id = -1;
    pj_status_t status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_tap_module);
    return status == PJ_SUCCESS ? baton_dialogs_start() : status;
}

/* Bytes noted and not yet drained. */
unsigned long baton_tap_pending() { return (unsigned long)baton_records.size(); }

/* Records lost because nobody drained. */
unsigned long baton_tap_dropped() { return baton_dropped; }

std::string baton_tap_drain() {
    std::string out;
    out.swap(baton_records);
    return out;
}

/* Unhook the callbacks nobody listens to, filter onCallState. To be called once after libInit. */
void baton_quiet() {
    pjsua_callback *cb = &pjsua_var.ua_cfg.cb;
    cb->on_call_tsx_state = NULL;
    cb->on_call_sdp_created = NULL;
    cb->on_stream_precreate = NULL;
    cb->on_stream_created2 = NULL;
    cb->on_stream_destroyed = NULL;
    cb->on_call_media_event = NULL;
    cb->on_call_media_transport_state = NULL;
    if (cb->on_call_state != &baton_on_call_state) {
        baton_state_cb = cb->on_call_state;
        cb->on_call_state = &baton_on_call_state;
    }
}

/* Keep memory instead of giving it back and asking again: PJSIP's pools are cached up to pool_bytes (pjsua caches none),
 * and glibc neither trims nor maps below 32 MB. Measured at ring-all to five: a tenth of all CPU went into clearing pages
 * that had been given back a moment before. To be called once after libCreate. */
void baton_keep_memory(unsigned long pool_bytes) {
#if PJ_HAS_POOL_ALT_API
    (void)pool_bytes;  /* sanitized: there are no pools, each allocation is one of the allocator's */
#else
    pjsua_var.cp.max_capacity = pool_bytes;
#endif
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    mallopt(M_TOP_PAD, 16 << 20);
    mallopt(M_MMAP_THRESHOLD, 32 << 20);  /* glibc takes no more than HEAP_MAX_SIZE / 2 and ignores what is above */
}

/* How many calls this build can carry at all (PJSUA_MAX_CALLS). */
int baton_max_calls() { return PJSUA_MAX_CALLS; }

/* How many calls the running library will carry: what it was told, clamped to the build. */
int baton_call_ceiling() { return (int)pjsua_call_get_max_count(); }

/* Slots in use, those that linger after a hang-up included. */
int baton_calls_used() { return (int)pjsua_call_get_count(); }

/* Dialogs alive: a gauge that must fall back to nothing. */
int baton_dialogs() { return (int)pjsip_ua_get_dlg_set_count(); }

/* Invite-session state (pjsip_inv_state) of a call; 6, DISCONNECTED, where the slot has no live session. */
int baton_call_state(int call_id) {
    if (call_id < 0 || call_id >= (int)pjsua_var.ua_cfg.max_calls) return 6;
    const pjsua_call *call = &pjsua_var.calls[call_id];
    if (!call->inv || call->hanging_up) return 6;
    return (int)call->inv->state;
}

/* Last status code pjsua noted for the call; 0: none. */
int baton_call_code(int call_id) {
    if (call_id < 0 || call_id >= (int)pjsua_var.ua_cfg.max_calls) return 0;
    return (int)pjsua_var.calls[call_id].last_code;
}

/* What names a call's dialog, parted by 0x1f: Call-ID, our tag in lower case, the far end's tag. Empty where there is none. */
std::string baton_call_names(int call_id) {
    if (call_id < 0 || call_id >= (int)pjsua_var.ua_cfg.max_calls) return std::string();
    const pjsua_call *call = &pjsua_var.calls[call_id];
    if (!call->inv || !call->inv->dlg) return std::string();
    const pj_str_t *id = &call->inv->dlg->call_id->id, *far = &call->inv->dlg->remote.info->tag;
    std::string out(id->ptr, id->slen);
    out.push_back('\x1f');
    out += baton_own(&call->inv->dlg->local.info->tag);
    out.push_back('\x1f');
    return out.append(far->slen > 0 ? far->ptr : "", far->slen > 0 ? far->slen : 0);
}

/* Conference port of the call's audio; -1 where audio is not running. */
int baton_audio_port(int call_id) { return (int)pjsua_call_get_conf_port(call_id); }

/* Let one conference port hear another; 0 is success. */
int baton_connect(int source, int sink) { return pjsua_conf_connect(source, sink); }
%}
