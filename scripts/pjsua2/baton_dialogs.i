/* Which messages are believed: answers of our own INVITEs from where they were sent, and keys that are legal.
 *
 * Anybody can send a response. One to INVITE counts where its branch finds the transaction that we opened, or, for a 2xx whose
 * transaction is over (retransmitted, late, or of a second dialog: RFC 3261 section 13.2.2.4), where Call-ID and From tag are
 * those of an INVITE of ours; and in both cases only from the address that this INVITE went to. All else is dropped before
 * PJSIP sees it, and counted: why 0 from another address, 1 of no transaction of ours.
 *
 * A 2xx to no INVITE of ours whose Call-ID looks like one of ours (the router that sent its INVITE died) is answered with ACK
 * and BYE, so that a buyer's agent who answers a dead call is not left on the line.
 */
%{
#include <string>
#include <unordered_map>
#include <vector>

namespace {

const long long BATON_LATE_NS = 40000000000LL;   /* as router.sip.legs.LATE_US: how long a leg that is over is remembered */
const long long BATON_TIMER_B_NS = 32000000000LL;  /* RFC 3261 section 17.1.1.2: by then an INVITE's transaction is gone */

struct baton_way { pj_int32_t cseq; pj_sockaddr to; };
struct baton_sent {
    std::string call_id;
    std::vector<baton_way> ways;  /* where each INVITE of the dialog went; a re-INVITE may go elsewhere */
    long long sent_ns, alive_ns;  /* of the last INVITE; when the dialog was last seen in a call's slot */
    bool final;                   /* the last INVITE has had its final answer */
    pjsip_transport *by;          /* the connection that it left by, held; NULL: a datagram, or let go of */
};
std::unordered_map<std::string, baton_sent> baton_sents;  /* by our tag, lower case */
const size_t BATON_WAYS = 4;  /* retransmissions of a 2xx come within 32 s (RFC 3261 section 13.3.1.4): of the last re-INVITEs */

unsigned long baton_odd_count = 0, baton_stray_count = 0, baton_forged_count[2] = { 0, 0 };
std::string baton_forged_last;

std::string baton_own(const pj_str_t *tag) {
    std::string out(tag->slen > 0 ? tag->ptr : "", tag->slen > 0 ? tag->slen : 0);
    for (size_t i = 0; i < out.size(); ++i) out[i] = (char)pj_tolower(out[i]);
    return out;
}

/* No white space, no control character, ASCII only: RFC 3261 section 25.1, word and token. What else has no place there does
 * no harm and is let be. */
bool baton_is_key(const pj_str_t *key) {
    for (pj_ssize_t i = 0; i < key->slen; ++i)
        if ((unsigned char)key->ptr[i] <= 0x20 || (unsigned char)key->ptr[i] >= 0x7f) return false;
    return true;
}

bool baton_keys_are_legal(pjsip_rx_data *rdata) {
    const bool legal = rdata->msg_info.cid && rdata->msg_info.from && rdata->msg_info.to
                       && baton_is_key(&rdata->msg_info.cid->id) && baton_is_key(&rdata->msg_info.from->tag)
                       && baton_is_key(&rdata->msg_info.to->tag);
    if (!legal) ++baton_odd_count;
    return legal;
}

bool baton_same_host(const pj_sockaddr *one, const pj_sockaddr *other) {
    return one->addr.sa_family == other->addr.sa_family
           && !memcmp(pj_sockaddr_get_addr(one), pj_sockaddr_get_addr(other), pj_sockaddr_get_addr_len(one));
}

/* PJSIP closes a connection of ours 33 s after the last request, and the far end has no other way to send its BYE: our Contact
 * names this connection. It is held as long as the dialog is remembered. */
void baton_hold(baton_sent &sent, pjsip_transport *tp) {
    if (sent.by == tp) return;
    if (sent.by) pjsip_transport_dec_ref(sent.by);
    sent.by = tp && !(tp->flag & PJSIP_TRANSPORT_DATAGRAM) && pjsip_transport_add_ref(tp) == PJ_SUCCESS ? tp : NULL;
}

/* An INVITE is handed to the transport. True where it was not handed there before. */
bool baton_invite_leaves(const pjsip_tx_data *tdata) {
    const pjsip_msg *msg = tdata->msg;
    if (msg->line.req.method.id != PJSIP_INVITE_METHOD) return false;
    const pjsip_cid_hdr *cid = (const pjsip_cid_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CALL_ID, NULL);
    const pjsip_from_hdr *from = (const pjsip_from_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_FROM, NULL);
    const pjsip_cseq_hdr *cseq = (const pjsip_cseq_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CSEQ, NULL);
    if (!cid || !from || !cseq) return false;
    baton_sent &sent = baton_sents[baton_own(&from->tag)];
    if (sent.call_id.empty()) sent.call_id.assign(cid->id.ptr, cid->id.slen);
    baton_hold(sent, tdata->tp_info.transport);
    if (sent.ways.empty() || sent.ways.back().cseq != cseq->cseq) {
        if (sent.ways.size() >= BATON_WAYS) sent.ways.erase(sent.ways.begin());
        baton_way way;
        way.cseq = cseq->cseq;
        sent.ways.push_back(way);
        sent.final = false;
        sent.sent_ns = sent.alive_ns = baton_now_ns();
    } else if (!pj_sockaddr_cmp(&sent.ways.back().to, &tdata->tp_info.dst_addr))
        return false;
    pj_sockaddr_cp(&sent.ways.back().to, &tdata->tp_info.dst_addr);
    return true;
}

/* The INVITE of ours that a response names by Call-ID, From tag and CSeq, or NULL; and where it went. */
baton_sent *baton_sent_of(const pjsip_rx_data *rdata, const pj_sockaddr **to) {
    std::unordered_map<std::string, baton_sent>::iterator found = baton_sents.find(baton_own(&rdata->msg_info.from->tag));
    const pj_str_t *call_id = &rdata->msg_info.cid->id;
    if (found == baton_sents.end() || found->second.call_id.compare(0, std::string::npos, call_id->ptr, call_id->slen))
        return NULL;
    const std::vector<baton_way> &ways = found->second.ways;
    for (size_t i = ways.size(); i-- > 0;)
        if (ways[i].cseq == rdata->msg_info.cseq->cseq) {
            *to = &ways[i].to;
            return &found->second;
        }
    return NULL;
}

bool baton_left_answered(pjsip_rx_data *rdata);

baton_answer baton_drop(const pjsip_rx_data *rdata, int why) {
    ++baton_forged_count[why];
    baton_forged_last = rdata->pkt_info.src_name;
    return BATON_DROP;
}

baton_answer baton_judge_answer(pjsip_rx_data *rdata) {
    if (rdata->msg_info.cseq->method.id != PJSIP_INVITE_METHOD) return BATON_NOBODYS;
    const int code = rdata->msg_info.msg->line.status.code;
    const pj_sockaddr *to = NULL, *from = &rdata->pkt_info.src_addr;
    baton_sent *sent = baton_sent_of(rdata, &to);
    pj_str_t key;
    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAC, pjsip_get_invite_method(), rdata) != PJ_SUCCESS)
        return baton_drop(rdata, 1);
    if (pjsip_tsx_layer_find_tsx(&key, PJ_FALSE)) {
        if (!sent) return baton_drop(rdata, 1);  /* the branch is right, and the rest is not */
        if (!baton_same_host(to, from)) return baton_drop(rdata, 0);
        if (code >= 200) sent->final = true;
        return BATON_TAKE;
    }
    if (!sent && code / 100 != 2) return baton_left_answered(rdata) ? BATON_DROP : baton_drop(rdata, 1);
    if (!sent) return BATON_NOBODYS;
    if (!baton_same_host(to, from)) return baton_drop(rdata, 0);
    if (!sent->final && baton_now_ns() - sent->sent_ns < BATON_TIMER_B_NS) return baton_drop(rdata, 1);  /* another branch */
    return code / 100 == 2 ? BATON_TAKE : BATON_DROP;  /* what comes again, or late, says nothing new */
}

/* True where a Contact names somebody whom SIP can reach. */
bool baton_sip_contact(const pjsip_contact_hdr *contact) {
    return contact && !contact->star && contact->uri
           && (PJSIP_URI_SCHEME_IS_SIP(contact->uri) || PJSIP_URI_SCHEME_IS_SIPS(contact->uri));
}

/* What cannot be sent is ours to let go of. */
void baton_send_once(pjsip_tx_data *tdata) {
    if (pjsip_endpt_send_request_stateless(pjsua_get_pjsip_endpt(), tdata, NULL, NULL) != PJ_SUCCESS)
        pjsip_tx_data_dec_ref(tdata);
}

/* A request within the dialog that a 2xx of nobody's would make: to its Contact, by its Record-Route backwards
 * (RFC 3261 section 12.1.2). NULL where the response does not tell enough. */
pjsip_tx_data *baton_in_dialog(pjsip_rx_data *rdata, const pjsip_method *method, int cseq) {
    pjsip_msg *msg = rdata->msg_info.msg;
    pjsip_contact_hdr *contact = (pjsip_contact_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CONTACT, NULL);
    pjsip_tx_data *tdata = NULL;
    if (!baton_sip_contact(contact)) return NULL;
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

/* Anybody can send a 2xx: so many a second are answered, and repeatedly only to where it came from. */
const int BATON_STRAYS_A_SECOND = 50;

bool baton_stray_allowed() {
    static long long second = 0;
    static int count = 0;
    const long long now_s = baton_now_ns() / 1000000000LL;
    if (second != now_s) { second = now_s; count = 0; }
    return ++count <= BATON_STRAYS_A_SECOND;
}

/* A Call-ID as router.sip.wire makes them: 20 characters, a hyphen, the leg, a full stop, 32 letters. */
bool baton_looks_like_ours(const pj_str_t *id) {
    const pj_ssize_t stop = id->slen - 33;
    if (stop < 22 || stop > 24 || id->ptr[20] != '-' || id->ptr[stop] != '.') return false;
    for (pj_ssize_t i = 0; i < id->slen; ++i) {
        if (i == 20 || i == stop) continue;
        const bool digit = pj_isdigit(id->ptr[i]), letter = pj_islower(id->ptr[i]);
        if (i < 20 ? !digit && !letter : i < stop ? !digit : !letter) return false;
    }
    return true;
}

bool baton_contact_is_source(const pjsip_rx_data *rdata) {
    const pjsip_contact_hdr *contact =
        (const pjsip_contact_hdr *)pjsip_msg_find_hdr(rdata->msg_info.msg, PJSIP_H_CONTACT, NULL);
    if (!baton_sip_contact(contact) || rdata->msg_info.record_route) return false;
    const pjsip_sip_uri *uri = (const pjsip_sip_uri *)pjsip_uri_get_uri(contact->uri);
    return !pj_strcmp2(&uri->host, rdata->pkt_info.src_name);
}

/* A 2xx that no transaction has: of a dialog that we have (PJSIP sends its ACK again), of a second dialog of an INVITE of
 * ours, or of a router that died. The latter two are ACKed, then BYEd. What has come here was judged by the tap. */
pj_bool_t baton_on_stray(pjsip_rx_data *rdata) {
    const pjsip_cseq_hdr *cseq = rdata->msg_info.cseq;
    const int code = rdata->msg_info.msg->line.status.code;
    const pj_sockaddr *to = NULL;
    if (cseq->method.id != PJSIP_INVITE_METHOD || code < 200 || code > 299 || pjsip_rdata_get_tsx(rdata)) return PJ_FALSE;
    const bool ours = baton_sent_of(rdata, &to) != NULL;
    pj_str_t none = { NULL, 0 };
    if (ours && (pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.from->tag, &rdata->msg_info.to->tag, PJ_FALSE)
                 || pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.from->tag, &none, PJ_FALSE)))
        return PJ_FALSE;
    if (!ours && !baton_looks_like_ours(&rdata->msg_info.cid->id)) {
        baton_drop(rdata, 1);
        return PJ_TRUE;
    }
    if (!baton_stray_allowed()) return PJ_TRUE;
    if (!ours) ++baton_stray_count;
    pjsip_tx_data *ack = baton_in_dialog(rdata, pjsip_get_ack_method(), cseq->cseq);
    if (ack) baton_send_once(ack);
    pjsip_tx_data *bye = baton_in_dialog(rdata, &pjsip_bye_method, cseq->cseq + 1);
    if (bye && baton_contact_is_source(rdata)) pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), bye, -1, NULL, NULL);
    else if (bye) baton_send_once(bye);
    return PJ_TRUE;
}

pjsip_module baton_stray_module = {
    NULL, NULL, { (char *)"mod-baton-stray", 15 }, -1,
    PJSIP_MOD_PRIORITY_UA_PROXY_LAYER - 1,
    NULL, NULL, NULL, NULL, NULL, &baton_on_stray, NULL, NULL, NULL
};

pj_status_t baton_within_start();

pj_status_t baton_dialogs_start() {
    baton_sents.clear();
    baton_stray_module.id = -1;
    const pj_status_t status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_stray_module);
    return status == PJ_SUCCESS ? baton_within_start() : status;
}

}  // namespace
%}

%inline %{
/* 2xx answers to INVITEs that nobody here sent; each was ACKed and BYEd. */
unsigned long baton_strays() { return baton_stray_count; }

/* Responses to INVITE that were dropped: from another address than it went to, and of no transaction of ours. Where the last
 * one came from. */
unsigned long baton_forged_elsewhere() { return baton_forged_count[0]; }
unsigned long baton_forged_unmatched() { return baton_forged_count[1]; }
std::string baton_forged_source() { return baton_forged_last; }

/* Messages refused for a Call-ID or a tag that is none. */
unsigned long baton_odd_keys() { return baton_odd_count; }

/* To be called once a second: forget INVITEs whose dialog is over for as long as an answer may still come. Those left. */
unsigned long baton_dialogs_sweep() {
    const long long now_ns = baton_now_ns();
    for (unsigned i = 0; i < pjsua_var.ua_cfg.max_calls; ++i) {
        const pjsua_call *call = &pjsua_var.calls[i];
        if (!call->inv || !call->inv->dlg) continue;
        std::unordered_map<std::string, baton_sent>::iterator found =
            baton_sents.find(baton_own(&call->inv->dlg->local.info->tag));
        if (found != baton_sents.end()) found->second.alive_ns = now_ns;
    }
    for (std::unordered_map<std::string, baton_sent>::iterator one = baton_sents.begin(); one != baton_sents.end();) {
        const bool over = now_ns - one->second.alive_ns > BATON_LATE_NS;
        if (over || (one->second.by && one->second.by->is_shutdown)) baton_hold(one->second, NULL);
        if (over) one = baton_sents.erase(one);
        else ++one;
    }
    return (unsigned long)baton_sents.size();
}
%}
