/* Messages that did not come whole are refused, never read as if they had (RFC 3261 sections 18.3 and 21.5.7).
 *
 * A datagram of UDP has at most 65,527 bytes and PJSIP_MAX_PKT_LEN is above that, so none is cut. Over TCP and TLS what is
 * announced above it is answered with 513 and read past, so that the connection goes on with the next message; where even
 * the headers do not fit nobody knows where the next one begins, and the connection is given up.
 * A Content-Length above what came with the datagram, or two that differ: 400 to a request, a response is dropped.
 */
%{
#include <map>

namespace {

struct baton_past { unsigned long long left; pjsip_tp_state_listener_key *key; };
std::map<pjsip_transport *, baton_past> baton_reading_past;  /* bytes of a message that is too large still to come */
unsigned long baton_large_count = 0, baton_cut_count = 0;

bool baton_is_stranger(const pj_sockaddr *from);
void baton_conn_part(pjsip_transport *tp);
void baton_conn_ended(pjsip_transport *tp);

/* Bytes after the empty line, as PJSIP's scanner finds it: CRLF, LF and CR end a line. */
pj_ssize_t baton_body_size(const char *text, pj_ssize_t size) {
    bool ended = false;  /* a line was, and nothing has come since */
    for (pj_ssize_t i = 0; i < size; ++i) {
        if (text[i] != '\r' && text[i] != '\n') { ended = false; continue; }
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n') ++i;
        if (ended) return size - i - 1;
        ended = true;
    }
    return 0;
}

bool baton_is_cut(const pjsip_rx_data *rdata) {
    const pjsip_msg *msg = rdata->msg_info.msg;
    const pjsip_clen_hdr *said = (const pjsip_clen_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CONTENT_LENGTH, NULL);
    for (const pjsip_clen_hdr *one = said; one;
         one = (const pjsip_clen_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CONTENT_LENGTH, one->next))
        if (one->len != said->len) return true;
    if (!(rdata->tp_info.transport->flag & PJSIP_TRANSPORT_DATAGRAM)) return false;
    if (rdata->pkt_info.len >= PJSIP_MAX_PKT_LEN) return true;
    return said && said->len > baton_body_size(rdata->msg_info.msg_buf, rdata->msg_info.len);
}

pj_bool_t baton_refuse_cut(pjsip_rx_data *rdata) {
    if (!baton_is_cut(rdata)) return PJ_FALSE;
    ++baton_cut_count;
    if (rdata->msg_info.msg->type == PJSIP_REQUEST_MSG && rdata->msg_info.msg->line.req.method.id != PJSIP_ACK_METHOD)
        pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, PJSIP_SC_BAD_REQUEST, NULL, NULL, NULL);
    return PJ_TRUE;
}

/* Answer a request of which there are only the headers, or what of them fits. */
void baton_answer_large(pjsip_transport *tp, const char *text, pj_size_t size) {
    char name[PJ_INET6_ADDRSTRLEN];
    pj_sockaddr_print(&tp->key.rem_addr, name, sizeof(name), 0);
    if (baton_is_stranger(&tp->key.rem_addr)) return;
    pj_pool_t *pool = pjsip_endpt_create_pool(pjsua_get_pjsip_endpt(), "large", sizeof(pjsip_rx_data) + 4000, 4000);
    if (!pool) return;
    pjsip_rx_data *rdata = PJ_POOL_ZALLOC_T(pool, pjsip_rx_data);
    rdata->tp_info.pool = pool;
    rdata->tp_info.transport = tp;
    memcpy(rdata->pkt_info.packet, text, size);
    rdata->pkt_info.len = size;
    pj_sockaddr_cp(&rdata->pkt_info.src_addr, &tp->key.rem_addr);
    rdata->pkt_info.src_addr_len = pj_sockaddr_get_len(&tp->key.rem_addr);
    pj_ansi_strxcpy(rdata->pkt_info.src_name, name, sizeof(rdata->pkt_info.src_name));
    rdata->pkt_info.src_port = pj_sockaddr_get_port(&tp->key.rem_addr);
    rdata->msg_info.msg_buf = rdata->pkt_info.packet;
    rdata->msg_info.len = (int)size;
    pj_list_init(&rdata->msg_info.parse_err);
    const pjsip_msg *msg = rdata->msg_info.msg = pjsip_parse_rdata(rdata->pkt_info.packet, size, rdata);
    if (msg && pj_list_empty(&rdata->msg_info.parse_err) && msg->type == PJSIP_REQUEST_MSG
        && msg->line.req.method.id != PJSIP_ACK_METHOD && rdata->msg_info.cid && rdata->msg_info.from && rdata->msg_info.to
        && rdata->msg_info.via && rdata->msg_info.cseq)
        pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, PJSIP_SC_MESSAGE_TOO_LARGE, NULL, NULL, NULL);
    pj_pool_release(pool);
}

void baton_forget_past(pjsip_transport *tp, pjsip_transport_state state, const pjsip_transport_state_info *) {
    if (state == PJSIP_TP_STATE_DESTROY) baton_reading_past.erase(tp);
}

void baton_read_past(pjsip_transport *tp, unsigned long long left) {
    std::map<pjsip_transport *, baton_past>::iterator found = baton_reading_past.find(tp);
    if (found == baton_reading_past.end()) {
        baton_past past = { 0, NULL };
        if (pjsip_transport_add_state_listener(tp, &baton_forget_past, NULL, &past.key) != PJ_SUCCESS) {
            pjsip_transport_shutdown(tp);  /* nobody would say when to forget it */
            return;
        }
        found = baton_reading_past.insert(std::make_pair(tp, past)).first;
    }
    found->second.left = left;
}

/* Before PJSIP looks for a message in what a connection has brought. */
pj_status_t baton_on_data(pjsip_tp_rx_data *rx) {
    std::map<pjsip_transport *, baton_past>::iterator past = baton_reading_past.find(rx->tp);
    if (past != baton_reading_past.end() && past->second.left) {
        const pj_size_t many = rx->len < past->second.left ? rx->len : (pj_size_t)past->second.left;
        past->second.left -= many;
        if (!past->second.left) baton_conn_ended(rx->tp);
        rx->len -= many;
        return PJ_SUCCESS;
    }
    baton_conn_part(rx->tp);
    if (rx->len < PJSIP_MAX_PKT_LEN) return PJ_SUCCESS;  /* it may be whole, or more of it will come */
    const char *text = (const char *)rx->data;
    pj_size_t size = 0;
    if (pjsip_find_msg(text, rx->len, PJ_FALSE, &size) != PJSIP_EPARTIALMSG) return PJ_SUCCESS;
    ++baton_large_count;
    if (size > rx->len) {
        baton_answer_large(rx->tp, text, rx->len - baton_body_size(text, rx->len));
        baton_read_past(rx->tp, size - rx->len);
    } else {
        pj_size_t lines = rx->len;
        while (lines && text[lines - 1] != '\n') --lines;
        baton_answer_large(rx->tp, text, lines);
        baton_read_past(rx->tp, ~0ULL);
        pjsip_transport_shutdown(rx->tp);
    }
    rx->len = 0;
    return PJ_SUCCESS;
}

pj_status_t baton_whole_start() {
    baton_reading_past.clear();
    return pjsip_tpmgr_set_recv_data_cb(pjsip_endpt_get_tpmgr(pjsua_get_pjsip_endpt()), &baton_on_data);
}

}  // namespace
%}

%inline %{
/* Messages that were too large for us, and messages that came cut; all were refused. */
unsigned long baton_large() { return baton_large_count; }
unsigned long baton_cut() { return baton_cut_count; }
%}
