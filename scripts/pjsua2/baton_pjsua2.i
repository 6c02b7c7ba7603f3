/* Baton's additions to pjsua2's SWIG interface: a tap on SIP messages and cheap accessors.
 *
 * The tap is a PJSIP module next to the transport layer. It notes every INVITE sent or received, every BYE and CANCEL
 * received and every response to INVITE received, with CLOCK_MONOTONIC nanoseconds; it changes nothing. It is there because pjsua2 hides what
 * a meter needs: the instant an INVITE is handed to the transport, the first 100, the Reason header of a BYE, and a 2xx
 * that crosses our own CANCEL (pjsua2 answers that one with ACK and BYE and tells nobody).
 * baton_tap_drain() returns and forgets what was noted: records end in 0x1e, fields are parted by 0x1f:
 *   ns, direction (R or T), method, status (0: a request), Call-ID, To tag, reason phrase, Reason header.
 * When nobody drains, the newest records are dropped and counted above BATON_TAP_LIMIT bytes.
 *
 * A second module answers a 2xx that belongs to no dialog (the router that sent its INVITE died) with ACK and BYE, so that
 * a buyer's agent who answers a dead call is not left on the line.
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

const size_t BATON_TAP_LIMIT = 16u << 20;
std::string baton_records;
unsigned long baton_dropped = 0;
void (*baton_state_cb)(pjsua_call_id, pjsip_event *) = NULL;

void baton_put(const pj_str_t *s) {
    for (pj_ssize_t i = 0; s && i < s->slen && i < 240; ++i) {
        char c = s->ptr[i];
        baton_records.push_back((c >= 0 && c < 0x20) ? ' ' : c);
    }
}

/* A BYE counts within a dialog of ours (both tags), a CANCEL for an INVITE that we are answering (its branch): PJSIP refuses
 * any other, and so do the books. */
bool baton_counts(pjsip_rx_data *rdata) {
    if (!rdata || !rdata->msg_info.to || !rdata->msg_info.from || !rdata->msg_info.cid || !rdata->msg_info.via) return false;
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_BYE_METHOD)
        return pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag, PJ_FALSE)
               != NULL;
    pj_str_t key;
    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAS, pjsip_get_invite_method(), rdata) != PJ_SUCCESS)
        return false;
    return pjsip_tsx_layer_find_tsx(&key, PJ_FALSE) != NULL;
}

void baton_note(char direction, pjsip_msg *msg, pjsip_rx_data *rdata) {
    const pjsip_cseq_hdr *cseq = (const pjsip_cseq_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CSEQ, NULL);
    const pjsip_cid_hdr *cid = (const pjsip_cid_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CALL_ID, NULL);
    if (!cseq || !cid) return;
    const bool request = msg->type == PJSIP_REQUEST_MSG;
    const pjsip_method_e id = cseq->method.id;
    const bool received = direction == 'R';
    if (request ? !(id == PJSIP_INVITE_METHOD || (received && (id == PJSIP_BYE_METHOD || id == PJSIP_CANCEL_METHOD)))
                : !(received && id == PJSIP_INVITE_METHOD))
        return;
    if (request && received && id != PJSIP_INVITE_METHOD && !baton_counts(rdata)) return;
    if (baton_records.size() > BATON_TAP_LIMIT) { ++baton_dropped; return; }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char head[64];
    pj_ansi_snprintf(head, sizeof(head), "%lld\x1f%c\x1f", (long long)now.tv_sec * 1000000000LL + now.tv_nsec, direction);
    baton_records += head;
    baton_put(&cseq->method.name);
    pj_ansi_snprintf(head, sizeof(head), "\x1f%d\x1f", request ? 0 : msg->line.status.code);
    baton_records += head;
    baton_put(&cid->id);
    baton_records.push_back('\x1f');
    const pjsip_to_hdr *to = (const pjsip_to_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_TO, NULL);
    if (to) baton_put(&to->tag);
    baton_records.push_back('\x1f');
    if (!request) baton_put(&msg->line.status.reason);
    baton_records.push_back('\x1f');
    static const pj_str_t REASON = { (char *)"Reason", 6 };
    const pjsip_generic_string_hdr *why =
        (const pjsip_generic_string_hdr *)pjsip_msg_find_hdr_by_name(msg, &REASON, NULL);
    if (why) baton_put(&why->hvalue);
    baton_records.push_back('\x1e');
}

pj_bool_t baton_on_rx(pjsip_rx_data *rdata) { baton_note('R', rdata->msg_info.msg, rdata); return PJ_FALSE; }
pj_status_t baton_on_tx(pjsip_tx_data *tdata) { baton_note('T', tdata->msg, NULL); return PJ_SUCCESS; }

pjsip_module baton_tap_module = {
    NULL, NULL, { (char *)"mod-baton-tap", 13 }, -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 1,
    NULL, NULL, NULL, NULL, &baton_on_rx, &baton_on_rx, &baton_on_tx, &baton_on_tx, NULL
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
void baton_port_next(int account) { baton_port_turn(account); }

unsigned long baton_stray_count = 0;

/* True where a call of ours has this Call-ID: the 2xx is a second dialog of its INVITE (a fork), not a dead router's. */
bool baton_is_fork(const pj_str_t *call_id) {
    for (unsigned i = 0; i < pjsua_var.ua_cfg.max_calls; ++i) {
        const pjsua_call *call = &pjsua_var.calls[i];
        if (call->inv && call->inv->dlg && !pj_strcmp(&call->inv->dlg->call_id->id, call_id)) return true;
    }
    return false;
}

/* A request within the dialog that a 2xx of nobody's would make: to its Contact, by its Record-Route backwards
 * (RFC 3261 section 12.1.2). NULL where the response does not tell enough. */
pjsip_tx_data *baton_in_dialog(pjsip_rx_data *rdata, const pjsip_method *method, int cseq) {
    pjsip_msg *msg = rdata->msg_info.msg;
    pjsip_contact_hdr *contact = (pjsip_contact_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CONTACT, NULL);
    pjsip_tx_data *tdata = NULL;
    if (!contact || contact->star || !contact->uri) return NULL;
    pjsip_to_hdr *to = (pjsip_to_hdr *)pjsip_hdr_clone(rdata->tp_info.pool, rdata->msg_info.to);
    pjsip_from_hdr *from = (pjsip_from_hdr *)pjsip_hdr_clone(rdata->tp_info.pool, rdata->msg_info.from);
    if (pjsip_endpt_create_request_from_hdr(pjsua_get_pjsip_endpt(), method, (pjsip_uri *)pjsip_uri_get_uri(contact->uri),
                                            from, to, NULL, rdata->msg_info.cid, cseq, NULL, &tdata) != PJ_SUCCESS)
        return NULL;
    pjsip_hdr *after = (pjsip_hdr *)pjsip_msg_find_hdr(tdata->msg, PJSIP_H_FROM, NULL);
    pjsip_rr_hdr *record = rdata->msg_info.record_route;
    while (record) {  /* each goes in front of the one before: the order is turned round */
        pjsip_route_hdr *route = pjsip_route_hdr_create(tdata->pool);
        pj_memcpy(&route->name_addr, pjsip_uri_clone(tdata->pool, &record->name_addr), sizeof(route->name_addr));
        pj_list_insert_before(after, route);
        after = (pjsip_hdr *)route;
        record = (pjsip_rr_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_RECORD_ROUTE, record->next);
    }
    return tdata;
}

/* Anybody can send a 2xx: it is answered only if its Call-ID looks like one of ours (20 characters, a hyphen, the leg), so many
 * a second, and repeatedly only to where it came from. */
const int BATON_STRAYS_A_SECOND = 50;

bool baton_stray_allowed(const pjsip_rx_data *rdata) {
    static long long second = 0;
    static int count = 0;
    const pj_str_t *id = &rdata->msg_info.cid->id;
    if (id->slen < 22 || id->slen > 24 || id->ptr[20] != '-') return false;
    for (pj_ssize_t i = 0; i < id->slen; ++i)
        if (i != 20 && !pj_isdigit(id->ptr[i]) && (i > 20 || !pj_islower(id->ptr[i]))) return false;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (second != now.tv_sec) { second = now.tv_sec; count = 0; }
    return ++count <= BATON_STRAYS_A_SECOND;
}

bool baton_contact_is_source(const pjsip_rx_data *rdata) {
    const pjsip_contact_hdr *contact =
        (const pjsip_contact_hdr *)pjsip_msg_find_hdr(rdata->msg_info.msg, PJSIP_H_CONTACT, NULL);
    if (!contact || contact->star || rdata->msg_info.record_route) return false;
    const pjsip_sip_uri *uri = (const pjsip_sip_uri *)pjsip_uri_get_uri(contact->uri);
    return !pj_strcmp2(&uri->host, rdata->pkt_info.src_name);
}

/* A 2xx to an INVITE of a router that died: nobody here knows its dialog. It is ACKed, then BYEd. */
pj_bool_t baton_on_stray(pjsip_rx_data *rdata) {
    const pjsip_cseq_hdr *cseq = rdata->msg_info.cseq;
    const int code = rdata->msg_info.msg->line.status.code;
    if (cseq->method.id != PJSIP_INVITE_METHOD || code < 200 || code > 299 || pjsip_rdata_get_tsx(rdata)) return PJ_FALSE;
    if (pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.from->tag, &rdata->msg_info.to->tag, PJ_FALSE))
        return PJ_FALSE;
    pj_str_t none = { NULL, 0 };
    if (pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.from->tag, &none, PJ_FALSE)) return PJ_FALSE;
    if (!baton_stray_allowed(rdata)) return PJ_TRUE;
    if (!baton_is_fork(&rdata->msg_info.cid->id)) ++baton_stray_count;
    pjsip_tx_data *ack = baton_in_dialog(rdata, pjsip_get_ack_method(), cseq->cseq);
    if (ack) pjsip_endpt_send_request_stateless(pjsua_get_pjsip_endpt(), ack, NULL, NULL);
    pjsip_tx_data *bye = baton_in_dialog(rdata, &pjsip_bye_method, cseq->cseq + 1);
    if (bye && baton_contact_is_source(rdata)) pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), bye, -1, NULL, NULL);
    else if (bye) pjsip_endpt_send_request_stateless(pjsua_get_pjsip_endpt(), bye, NULL, NULL);
    return PJ_TRUE;
}

pjsip_module baton_stray_module = {
    NULL, NULL, { (char *)"mod-baton-stray", 15 }, -1,
    PJSIP_MOD_PRIORITY_UA_PROXY_LAYER - 1,
    NULL, NULL, NULL, NULL, NULL, &baton_on_stray, NULL, NULL, NULL
};

void baton_on_call_state(pjsua_call_id call_id, pjsip_event *e) {
    const pjsua_call *call = &pjsua_var.calls[call_id];
    if (call->hanging_up || !call->inv || call->inv->state == PJSIP_INV_STATE_DISCONNECTED)
        (*baton_state_cb)(call_id, e);
}

}  // namespace
%}

%include "../pjsua2.i"
%include "baton_whole.i"
%include "baton_gate.i"
%include "baton_media.i"
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
    /* CANCEL or BYE. Throws pj::Error. */
    void batonHangUp(const std::string &headers) throw(pj::Error) {
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
    if (status != PJ_SUCCESS) return status;
    baton_stray_module.id = -1;
    return pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_stray_module);
}

/* Bytes noted and not yet drained. */
unsigned long baton_tap_pending() { return (unsigned long)baton_records.size(); }

/* 2xx answers to INVITEs that nobody here sent; each was ACKed and BYEd. */
unsigned long baton_strays() { return baton_stray_count; }

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

/* Dialogs, transactions alive: gauges that must fall back to nothing. */
int baton_dialogs() { return (int)pjsip_ua_get_dlg_set_count(); }
int baton_transactions() { return (int)pjsip_tsx_layer_get_tsx_count(); }

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

/* Call-ID header of a call, empty where there is none. */
std::string baton_call_id(int call_id) {
    if (call_id < 0 || call_id >= (int)pjsua_var.ua_cfg.max_calls) return std::string();
    const pjsua_call *call = &pjsua_var.calls[call_id];
    if (!call->inv || !call->inv->dlg) return std::string();
    const pj_str_t *id = &call->inv->dlg->call_id->id;
    return std::string(id->ptr, id->slen);
}

/* Conference port of the call's audio; -1 where audio is not running. */
int baton_audio_port(int call_id) { return (int)pjsua_call_get_conf_port(call_id); }

/* Let one conference port hear another; 0 is success. */
int baton_connect(int source, int sink) { return pjsua_conf_connect(source, sink); }
int baton_disconnect(int source, int sink) { return pjsua_conf_disconnect(source, sink); }
%}
