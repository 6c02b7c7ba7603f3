/* The last SIP messages, whole, in a ring of fixed size: what `baton trace` shows of a transfer.
 *
 * A PJSIP module next to the transport layer copies every message that is received or handed to the transport. Keeping one
 * is a memcpy; nothing is formatted before somebody asks. The oldest messages give way. All of it runs on the one thread
 * that drives PJSIP.
 */
%{
#include <deque>
#include <vector>

namespace {

struct BatonKept {
    long long ns;
    size_t at, size;
    std::string call_id, peer;
    char direction;
};

std::vector<char> baton_ring;
std::deque<BatonKept> baton_kept;  /* the oldest first */
size_t baton_ring_at = 0;

/* Room for so many bytes; what was there is forgotten. */
size_t baton_ring_room(size_t size) {
    if (baton_ring_at + size > baton_ring.size()) {
        while (!baton_kept.empty() && baton_kept.front().at >= baton_ring_at) baton_kept.pop_front();
        baton_ring_at = 0;
    }
    const size_t begin = baton_ring_at, end = begin + size;
    while (!baton_kept.empty() && baton_kept.front().at < end && baton_kept.front().at + baton_kept.front().size > begin)
        baton_kept.pop_front();
    baton_ring_at = end;
    return begin;
}

void baton_keep(char direction, const pjsip_msg *msg, const char *text, size_t size, const char *kind, const char *host,
                int port) {
    const pjsip_cid_hdr *cid = (const pjsip_cid_hdr *)pjsip_msg_find_hdr(msg, PJSIP_H_CALL_ID, NULL);
    if (!cid || !text || !size || size > baton_ring.size()) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    BatonKept one;
    one.ns = (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
    one.direction = direction;
    one.call_id.assign(cid->id.ptr, cid->id.slen);
    char number[16];
    pj_ansi_snprintf(number, sizeof(number), ":%d", port);
    one.peer = std::string(kind) + ":" + host + number;
    one.size = size;
    one.at = baton_ring_room(size);
    memcpy(&baton_ring[one.at], text, size);
    baton_kept.push_back(one);
}

pj_bool_t baton_trace_rx(pjsip_rx_data *rdata) {
    baton_keep('R', rdata->msg_info.msg, rdata->msg_info.msg_buf, rdata->msg_info.len, rdata->tp_info.transport->type_name,
               rdata->pkt_info.src_name, rdata->pkt_info.src_port);
    return PJ_FALSE;
}

pj_status_t baton_trace_tx(pjsip_tx_data *tdata) {
    if (tdata->buf.start && tdata->buf.cur > tdata->buf.start)
        baton_keep('T', tdata->msg, tdata->buf.start, tdata->buf.cur - tdata->buf.start,
                   tdata->tp_info.transport ? tdata->tp_info.transport->type_name : "", tdata->tp_info.dst_name,
                   tdata->tp_info.dst_port);
    return PJ_SUCCESS;
}

pjsip_module baton_trace_module = {
    NULL, NULL, { (char *)"mod-baton-trace", 15 }, -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 1,
    NULL, NULL, NULL, NULL, &baton_trace_rx, &baton_trace_rx, &baton_trace_tx, &baton_trace_tx, NULL
};

/* Whether a Call-ID is one of those wanted, a list parted by 0x1e; one that ends in `*` stands for all that begin so. */
bool baton_is_wanted(const std::string &call_id, const std::string &wanted) {
    for (size_t at = 0; at < wanted.size();) {
        size_t end = wanted.find('\x1e', at);
        if (end == std::string::npos) end = wanted.size();
        const bool prefix = end > at && wanted[end - 1] == '*';
        const size_t size = end - at - (prefix ? 1 : 0);
        if (size && call_id.compare(0, size, wanted, at, size) == 0 && (prefix || call_id.size() == size)) return true;
        at = end + 1;
    }
    return false;
}

void baton_put_text(std::string &out, const char *text, size_t size) {
    for (size_t i = 0; i < size; ++i) {
        const char c = text[i];
        out.push_back((c >= 0 && c < 0x20 && c != '\r' && c != '\n' && c != '\t') || c == 0x7f ? '.' : c);
    }
}

}  // namespace
%}

%inline %{
/* Begin to keep the last messages, in so many bytes; 0: keep none. To be called once after libInit. A pj_status_t. */
int baton_trace_start(unsigned long bytes) {
    baton_kept.clear();
    baton_ring.assign(bytes, 0);
    baton_ring_at = 0;
    if (!bytes) return PJ_SUCCESS;
    baton_trace_module.id = -1;
    return pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_trace_module);
}

/* The messages of these Call-IDs (see baton_is_wanted), the oldest first, at most so many bytes: records end in 0x1e, fields are
 * parted by 0x1f: ns of CLOCK_MONOTONIC, direction (R or T), peer as kind:host:port, Call-ID, the message as it was. */
std::string baton_trace_find(const std::string &wanted, unsigned long most) {
    std::string out;
    for (std::deque<BatonKept>::const_iterator one = baton_kept.begin(); one != baton_kept.end(); ++one) {
        if (!baton_is_wanted(one->call_id, wanted)) continue;
        if (out.size() + one->size > most) break;
        char head[48];
        pj_ansi_snprintf(head, sizeof(head), "%lld\x1f%c\x1f", one->ns, one->direction);
        out += head;
        baton_put_text(out, one->peer.data(), one->peer.size());
        out.push_back('\x1f');
        baton_put_text(out, one->call_id.data(), one->call_id.size());
        out.push_back('\x1f');
        baton_put_text(out, &baton_ring[one->at], one->size);
        out.push_back('\x1e');
    }
    return out;
}
%}
