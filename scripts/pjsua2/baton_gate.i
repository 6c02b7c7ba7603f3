/* Requests outside dialogs, availability by OPTIONS, and probes of trunks.
 *
 * The gate looks at requests before anything else does, the tap included: a source that is in no network gets no answer.
 * Locked-out sources are dropped whatever network they are in. Requests within dialogs pass: they come from trunks and are
 * known by their tags. What is neither a call nor a question is refused here, where it costs nothing that lasts.
 *
 * OPTIONS outside dialogs are handed to Python as text and wait, bounded, for the answer that Python decides on.
 */
%include "baton_sources.i"
%include "baton_unread.i"
%{
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace {

const size_t BATON_ASKED_LIMIT = 256;
struct baton_asked { long id; pjsip_rx_data *rdata; long long at_ns; };
std::deque<baton_asked> baton_asks;
long baton_asked_serial = 0;
std::string baton_asked_text;
std::string baton_probe_text;

void baton_port_turn(int account);

const pj_str_t BATON_ALLOW = { (char *)"Allow", 5 }, BATON_ALLOW_EVENTS = { (char *)"Allow-Events", 12 };
const pj_str_t BATON_RETRY_AFTER = { (char *)"Retry-After", 11 };
const pj_str_t BATON_OUTSIDE = { (char *)"INVITE, ACK, CANCEL, BYE, OPTIONS", 33 };  /* of dialogs */
const pj_str_t BATON_EVENTS = { (char *)"refer", 5 }, BATON_ONE = { (char *)"1", 1 };
unsigned long baton_refused_methods = 0;

/* An answer that keeps nothing. */
pj_bool_t baton_refuse(pjsip_rx_data *rdata, int code, const pj_str_t *name, const pj_str_t *value) {
    pjsip_hdr list;
    pj_list_init(&list);
    if (name) pj_list_push_back(&list, pjsip_generic_string_hdr_create(rdata->tp_info.pool, name, value));
    pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, code, NULL, &list, NULL);
    return PJ_TRUE;
}

bool baton_method_is(const pjsip_rx_data *rdata, const char *name) {
    return !pj_strcmp2(&rdata->msg_info.msg->line.req.method.name, name);
}

/* A subscription is made by a REFER, and by nothing else (RFC 3515 section 2.4.4): events that we do not serve get 489 (RFC 6665
 * section 4.2.1.1), and so does a SUBSCRIBE that is to make one. */
pj_bool_t baton_refuse_event(pjsip_rx_data *rdata, bool within) {
    if (!baton_method_is(rdata, "SUBSCRIBE") && !baton_method_is(rdata, "PUBLISH")) return PJ_FALSE;
    static const pj_str_t EVENT = { (char *)"Event", 5 }, SHORT = { (char *)"o", 1 };
    pjsip_event_hdr *event = (pjsip_event_hdr *)pjsip_msg_find_hdr_by_names(rdata->msg_info.msg, &EVENT, &SHORT, NULL);
    if (within && event && baton_method_is(rdata, "SUBSCRIBE") && !pj_stricmp(&event->event_type, &BATON_EVENTS)) return PJ_FALSE;
    ++baton_refused_methods;
    return baton_refuse(rdata, 489, &BATON_ALLOW_EVENTS, &BATON_EVENTS);
}

/* What is no call and no question outside dialogs: answered and forgotten (RFC 3261 sections 8.2.1 and 12.2.2). */
pj_bool_t baton_refuse_method(pjsip_rx_data *rdata) {
    switch (rdata->msg_info.msg->line.req.method.id) {
    case PJSIP_INVITE_METHOD: case PJSIP_ACK_METHOD: case PJSIP_CANCEL_METHOD: case PJSIP_OPTIONS_METHOD: return PJ_FALSE;
    default: break;
    }
    if (rdata->msg_info.to && rdata->msg_info.to->tag.slen) return PJ_FALSE;  /* of a dialog that is over: 481 */
    if (baton_refuse_event(rdata, false)) return PJ_TRUE;
    ++baton_refused_methods;
    static const char *const WITHIN[] = { "BYE", "INFO", "UPDATE", "PRACK", "NOTIFY" };
    for (size_t i = 0; i < sizeof(WITHIN) / sizeof(*WITHIN); ++i)
        if (baton_method_is(rdata, WITHIN[i])) return baton_refuse(rdata, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST, NULL, NULL);
    return baton_refuse(rdata, PJSIP_SC_METHOD_NOT_ALLOWED, &BATON_ALLOW, &BATON_OUTSIDE);
}

/* Above its dialer's share: a new call is told when to come again, all else is dropped. What repeats a request that is being
 * answered costs nothing. */
pj_bool_t baton_refuse_over(pjsip_rx_data *rdata) {
    const pjsip_method *method = &rdata->msg_info.msg->line.req.method;
    if (method->id == PJSIP_ACK_METHOD || method->id == PJSIP_CANCEL_METHOD) return PJ_FALSE;
    const bool call = method->id == PJSIP_INVITE_METHOD;
    pj_str_t key;
    if (call && pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAS, method, rdata) == PJ_SUCCESS
        && pjsip_tsx_layer_find_tsx(&key, PJ_FALSE))
        return PJ_FALSE;
    if (baton_within_share(baton_key_of(&rdata->pkt_info.src_addr), call)) return PJ_FALSE;
    if (!call) return PJ_TRUE;
    return baton_refuse(rdata, PJSIP_SC_SERVICE_UNAVAILABLE, &BATON_RETRY_AFTER, &BATON_ONE);
}

pj_bool_t baton_gate_rx(pjsip_rx_data *rdata) {
    baton_conn_whole(rdata);
    if (rdata->msg_info.to && rdata->msg_info.to->tag.slen && rdata->msg_info.from && rdata->msg_info.cid
        && pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag, PJ_FALSE))
        return baton_refuse_cut(rdata) || baton_refuse_event(rdata, true);  /* of ours: from a trunk, or a dialer */
    const pj_sockaddr *from = &rdata->pkt_info.src_addr;
    const bool asks = rdata->msg_info.msg->line.req.method.id == PJSIP_OPTIONS_METHOD;
    if (baton_is_stranger(from) && !(asks && !baton_is_locked_out(baton_key_of(from)) && baton_is_trunk(from))) {
        baton_dropped_of(baton_key_of(from));
        return PJ_TRUE;
    }
    if (baton_refuse_over(rdata) || baton_refuse_cut(rdata) || baton_refuse_method(rdata)) return PJ_TRUE;
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_INVITE_METHOD) baton_port_turn(pjsua_acc_get_default());
    return PJ_FALSE;
}

pj_bool_t baton_gate_rx_response(pjsip_rx_data *rdata) {
    baton_conn_whole(rdata);
    return baton_refuse_cut(rdata);
}

/* Where our requests go: trunks answer from there. */
pj_status_t baton_gate_tx(pjsip_tx_data *tdata) {
    const pjsip_method_e id = tdata->msg->line.req.method.id;
    const pjsip_to_hdr *to = (const pjsip_to_hdr *)pjsip_msg_find_hdr(tdata->msg, PJSIP_H_TO, NULL);
    const bool trunk = to && !to->tag.slen
                       && (id == PJSIP_INVITE_METHOD || id == PJSIP_OPTIONS_METHOD || id == PJSIP_REGISTER_METHOD);
    if (tdata->tp_info.dst_addr_len) baton_note_sent(&tdata->tp_info.dst_addr, trunk);
    return PJ_SUCCESS;
}

pjsip_module baton_gate_module = {
    NULL, NULL, { (char *)"mod-baton-gate", 14 }, -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 2,
    NULL, NULL, NULL, NULL, &baton_gate_rx, &baton_gate_rx_response, &baton_gate_tx, NULL, NULL
};

/* Hand an OPTIONS outside dialogs to Python; beyond the bound PJSIP's own answer will do. */
pj_bool_t baton_options_rx(pjsip_rx_data *rdata) {
    pjsip_msg *msg = rdata->msg_info.msg;
    if (msg->line.req.method.id != PJSIP_OPTIONS_METHOD || rdata->msg_info.to->tag.slen) return PJ_FALSE;
    while (!baton_asks.empty() && baton_now_ns() - baton_asks.front().at_ns > 2000000000LL) {
        pjsip_rx_data_free_cloned(baton_asks.front().rdata);
        baton_asks.pop_front();
    }
    if (baton_asks.size() >= BATON_ASKED_LIMIT) return PJ_FALSE;
    baton_asked one;
    if (pjsip_rx_data_clone(rdata, 0, &one.rdata) != PJ_SUCCESS) return PJ_FALSE;
    one.id = ++baton_asked_serial;
    one.at_ns = baton_now_ns();
    baton_asks.push_back(one);
    char head[32];
    pj_ansi_snprintf(head, sizeof(head), "%ld\x1f", one.id);
    baton_asked_text += head;
    baton_asked_text += rdata->pkt_info.src_name;
    baton_asked_text += baton_is_trunk(&rdata->pkt_info.src_addr) ? "\x1f" "1\x1f" : "\x1f" "0\x1f";
    for (int i = 0; i < rdata->msg_info.len; ++i) {
        const char c = rdata->msg_info.msg_buf[i];
        if (c != '\x1f' && c != '\x1e') baton_asked_text.push_back(c);
    }
    baton_asked_text.push_back('\x1e');
    return PJ_TRUE;
}

pjsip_module baton_options_module = {
    NULL, NULL, { (char *)"mod-baton-options", 17 }, -1,
    PJSIP_MOD_PRIORITY_UA_PROXY_LAYER - 2,
    NULL, NULL, NULL, NULL, &baton_options_rx, NULL, NULL, NULL, NULL
};

bool baton_probe_told = false;

struct baton_probe { std::string key; long long at_ns; };

void baton_probed(void *token, pjsip_event *e) {
    baton_probe *probe = (baton_probe *)token;
    int code = 0;
    bool local = true;
    if (e->type == PJSIP_EVENT_TSX_STATE) {
        code = e->body.tsx_state.tsx->status_code;
        local = e->body.tsx_state.type != PJSIP_EVENT_RX_MSG;
    }
    char tail[64];
    pj_ansi_snprintf(tail, sizeof(tail), "\x1f%d\x1f%d\x1f%lld\x1e", code, local ? 1 : 0, (baton_now_ns() - probe->at_ns) / 1000);
    baton_probe_text += probe->key + tail;
    baton_probe_told = true;
    delete probe;
}

}  // namespace
%}

%inline %{
/* Register the gate and the OPTIONS module. To be called once after libInit. Returns a pj_status_t. */
int baton_gate_start() {
    baton_networks.clear();
    baton_buckets.clear();
    baton_locked.clear();
    baton_sent_to.clear();
    baton_trunks.clear();
    baton_gate_on = false;
    baton_conns.clear();
    baton_conns_of.clear();
    baton_greeted.clear();
    pjsip_tpmgr *manager = pjsip_endpt_get_tpmgr(pjsua_get_pjsip_endpt());
    if (pjsip_tpmgr_get_state_cb(manager) != &baton_on_transport) {
        baton_tp_before = pjsip_tpmgr_get_state_cb(manager);
        pjsip_tpmgr_set_state_cb(manager, &baton_on_transport);
    }
    pjsip_baton_hook.may_read = &baton_may_read;
    pjsip_baton_hook.on_unread = &baton_on_unread;
    pj_activesock_may_accept = &baton_may_accept;
    baton_gate_module.id = baton_options_module.id = -1;
    pj_status_t status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_gate_module);
    if (status != PJ_SUCCESS) return status;
    status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_options_module);
    return status == PJ_SUCCESS ? baton_whole_start() : status;
}

/* The dialers' networks: lines of "address/prefix dialer", the last a number that those of one dialer share. `on`: nobody else
 * is let in. Returns how many were understood. */
int baton_gate_networks(const std::string &lines, bool on) {
    const int count = baton_read_networks(lines, baton_networks);
    int most = -1;
    for (size_t i = 0; i < baton_networks.size(); ++i) most = baton_networks[i].dialer > most ? baton_networks[i].dialer : most;
    baton_bucket full = { baton_burst, baton_now_ns() };
    baton_buckets.resize(2 * (most + 1), full);
    baton_gate_on = on;
    return count;
}

/* Drop whatever comes from this address for so many milliseconds; 0 lifts it. */
void baton_gate_lock(const std::string &source, int for_ms) {
    unsigned char spread[16];
    if (!baton_key_from(source, spread)) return;
    if (for_ms > 0) baton_locked[baton_key_of(spread)] = baton_now_ns() + for_ms * 1000000LL;
    else baton_locked.erase(baton_key_of(spread));
}

/* Messages dropped so far, and where the last one came from. */
unsigned long baton_gate_dropped() { return baton_gate_count; }
std::string baton_gate_last_source() { return baton_key_text(baton_gate_last); }

/* Requests outside dialogs of methods and events that we do not serve; each was answered so. */
unsigned long baton_methods_refused() { return baton_refused_methods; }

/* OPTIONS that wait for an answer: id, source, 1 where it is a trunk's, message, each ended by 0x1f, the record by 0x1e. */
unsigned long baton_options_pending() { return (unsigned long)baton_asked_text.size(); }
std::string baton_options_drain() {
    std::string out;
    out.swap(baton_asked_text);
    return out;
}

/* Answer one of them. Headers as in batonRespond. Returns a pj_status_t; nobody waits under that id: PJ_ENOTFOUND. */
int baton_options_answer(long id, int code, const std::string &headers) {
    for (std::deque<baton_asked>::iterator one = baton_asks.begin(); one != baton_asks.end(); ++one) {
        if (one->id != id) continue;
        pjsip_rx_data *rdata = one->rdata;
        baton_asks.erase(one);
        pjsip_hdr list;
        pj_list_init(&list);
        pj_pool_t *pool = rdata->tp_info.pool;
        const int kinds[] = { PJSIP_H_ALLOW, PJSIP_H_ACCEPT, PJSIP_H_SUPPORTED };
        for (int i = 0; i < 3; ++i) {
            const pjsip_hdr *capability = pjsip_endpt_get_capability(pjsua_get_pjsip_endpt(), kinds[i], NULL);
            if (capability) pj_list_push_back(&list, pjsip_hdr_clone(pool, capability));
        }
        pj::SipTxOption option;
        baton_headers(headers, option);
        for (size_t i = 0; i < option.headers.size(); ++i) {
            pj_str_t name = { (char *)option.headers[i].hName.c_str(), (pj_ssize_t)option.headers[i].hName.size() };
            pj_str_t value = { (char *)option.headers[i].hValue.c_str(), (pj_ssize_t)option.headers[i].hValue.size() };
            pj_list_push_back(&list, (pjsip_hdr *)pjsip_generic_string_hdr_create(pool, &name, &value));
        }
        const pj_status_t status = pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, code, NULL, &list, NULL);
        pjsip_rx_data_free_cloned(rdata);
        return status;
    }
    return PJ_ENOTFOUND;
}

/* Ask a trunk with OPTIONS; the result comes by baton_probe_drain: key, code, 1 where no answer came (timer F: 32 s),
 * microseconds. Returns a pj_status_t; unless it is 0 no result follows. */
int baton_probe_send(int account, const std::string &uri, const std::string &key) {
    const pj_str_t name = { (char *)"OPTIONS", 7 };
    pjsip_method method;
    pjsip_method_init_np(&method, (pj_str_t *)&name);
    pj_str_t target = { (char *)uri.c_str(), (pj_ssize_t)uri.size() };
    pjsip_tx_data *tdata = NULL;
    pj_status_t status = pjsua_acc_create_request(account, &method, &target, &tdata);
    if (status != PJ_SUCCESS) return status;
    baton_probe *probe = new baton_probe;
    probe->key = key;
    probe->at_ns = baton_now_ns();
    baton_probe_told = false;
    status = pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), tdata, -1, probe, &baton_probed);
    if (status != PJ_SUCCESS && !baton_probe_told) delete probe;
    return status != PJ_SUCCESS && baton_probe_told ? PJ_SUCCESS : status;
}
unsigned long baton_probe_pending() { return (unsigned long)baton_probe_text.size(); }
std::string baton_probe_drain() {
    std::string out;
    out.swap(baton_probe_text);
    return out;
}

/* Read a message as PJSIP does, and forget it: for who measures what that takes. 1 where it is one, 0 where it is not. */
int baton_parse(const std::string &text) {
    pj_pool_t *pool = pjsip_endpt_create_pool(pjsua_get_pjsip_endpt(), "parse", 4000, 4000);
    if (!pool) return 0;
    std::vector<char> copy(text.begin(), text.end());
    copy.push_back('\0');
    pjsip_parser_err_report errors;
    pj_list_init(&errors);
    const pjsip_msg *msg = pjsip_parse_msg(pool, &copy[0], text.size(), &errors);
    const int good = msg && pj_list_empty(&errors) ? 1 : 0;
    pj_pool_release(pool);
    return good;
}
%}
