/* Requests that PJSIP cannot read: 400 with a reason that names the header (RFC 3261 sections 8.2 and 21.4.1), and counted.
 *
 * PJSIP drops a message with one header that does not parse, and one over a stream whose end nobody knows; the far end repeats it
 * for 32 s and learns nothing. The answer is made of the request's own lines (Via, From, To, Call-ID, CSeq), so that it can be
 * given where one of these is what cannot be read. It goes to where the request came from and to nowhere that it names. A message
 * without one of each gets none; nor does an ACK, a stranger, or who is above its share. Responses are dropped.
 */
%{
#include <string>

namespace {

const size_t BATON_UNREAD_LIMIT = 16384;  /* bytes of these lines; they are told back once */
unsigned long baton_unread_requests = 0, baton_unread_responses = 0;

struct baton_lines { std::string via, from, to, call_id, cseq; int froms, tos, call_ids, cseqs; };

bool baton_named(const std::string &name, const char *whole, const char *compact) {
    return !pj_ansi_stricmp(name.c_str(), whole) || (compact && !pj_ansi_stricmp(name.c_str(), compact));
}

void baton_sort_line(const std::string &line, baton_lines &lines) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) return;
    std::string name = line.substr(0, colon);
    while (!name.empty() && (name[name.size() - 1] == ' ' || name[name.size() - 1] == '\t')) name.erase(name.size() - 1);
    const std::string whole = line + "\r\n";
    if (baton_named(name, "Via", "v")) lines.via += whole;
    else if (baton_named(name, "From", "f")) { lines.from = whole; ++lines.froms; }
    else if (baton_named(name, "To", "t")) { lines.to = line; ++lines.tos; }
    else if (baton_named(name, "Call-ID", "i")) { lines.call_id = whole; ++lines.call_ids; }
    else if (baton_named(name, "CSeq", NULL)) { lines.cseq = whole; ++lines.cseqs; }
}

/* The lines of the headers, unfolded. */
void baton_read_lines(const char *text, size_t size, baton_lines &lines) {
    std::string line;
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && text[end] != '\r' && text[end] != '\n') ++end;
        if (end == at) break;  /* the empty line */
        if ((text[at] == ' ' || text[at] == '\t') && !line.empty()) {
            line.append(text + at, end - at);
        } else {
            baton_sort_line(line, lines);
            line.assign(text + at, end - at);
        }
        at = end + 1 < size && text[end] == '\r' && text[end + 1] == '\n' ? end + 2 : end + 1;
    }
    baton_sort_line(line, lines);
}

/* Of a header: what its name may be shown as. */
std::string baton_unread_name(const pjsip_rx_data *rdata, pj_status_t why) {
    std::string name;
    const pjsip_parser_err_report *first = rdata->msg_info.parse_err.next;
    if (first && first != &rdata->msg_info.parse_err) name.assign(first->hname.ptr ? first->hname.ptr : "", first->hname.slen);
    else if (!rdata->msg_info.msg) return "Content-Length";  /* of a stream */
    else if (!rdata->msg_info.cid || !rdata->msg_info.cid->id.slen) return "Call-ID";
    else if (!rdata->msg_info.from) return "From";
    else if (!rdata->msg_info.to) return "To";
    else if (!rdata->msg_info.via) return "Via";
    else if (!rdata->msg_info.cseq) return "CSeq";
    if (name == "Request Line") return name;
    bool plain = !name.empty() && name.size() <= 32;
    for (size_t i = 0; i < name.size(); ++i) plain = plain && (pj_isalnum((unsigned char)name[i]) || name[i] == '-');
    PJ_UNUSED_ARG(why);
    return plain ? name : "a header";
}

void baton_answer_unread(pjsip_rx_data *rdata, const char *text, size_t size, pj_status_t why) {
    baton_lines lines = baton_lines();
    baton_read_lines(text, size, lines);
    if (lines.via.empty() || lines.froms != 1 || lines.tos != 1 || lines.call_ids != 1 || lines.cseqs != 1) return;
    std::string out = "SIP/2.0 400 Bad Request: " + baton_unread_name(rdata, why) + "\r\n" + lines.via + lines.from + lines.to;
    char tail[64];
    pj_ansi_snprintf(tail, sizeof(tail), ";tag=%08x%08x\r\n", (unsigned)pj_rand(), (unsigned)pj_rand());
    std::string lower = lines.to;
    for (size_t i = 0; i < lower.size(); ++i) lower[i] = (char)pj_tolower(lower[i]);
    out += lower.find("tag=") == std::string::npos ? tail : "\r\n";
    out += lines.call_id + lines.cseq + "Content-Length: 0\r\n\r\n";
    if (out.size() > BATON_UNREAD_LIMIT || out.find('\0') != std::string::npos) return;
    pjsip_transport *tp = rdata->tp_info.transport;
    pjsip_tpselector same;
    pj_bzero(&same, sizeof(same));
    same.type = PJSIP_TPSELECTOR_TRANSPORT;
    same.u.transport = tp;
    pjsip_tpmgr_send_raw(pjsip_endpt_get_tpmgr(pjsua_get_pjsip_endpt()), (pjsip_transport_type_e)tp->key.type, &same, NULL,
                         out.data(), out.size(), &rdata->pkt_info.src_addr, rdata->pkt_info.src_addr_len, NULL, NULL);
}

void baton_on_unread(pjsip_rx_data *rdata, pj_status_t why) {
    const char *text = rdata->msg_info.msg_buf;
    size_t size = rdata->msg_info.len > 0 ? (size_t)rdata->msg_info.len : 0;
    pjsip_transport *tp = rdata->tp_info.transport;
    const bool lost = !(tp->flag & PJSIP_TRANSPORT_DATAGRAM) && !rdata->msg_info.msg
                      && rdata->msg_info.parse_err.next == &rdata->msg_info.parse_err;  /* nobody knows where it ends */
    const baton_key key = baton_key_of(&rdata->pkt_info.src_addr);
    if (size >= 8 && !pj_ansi_strnicmp(text, "SIP/2.0 ", 8)) {
        ++baton_unread_responses;
    } else if (baton_is_stranger(&rdata->pkt_info.src_addr)) {
        baton_dropped_of(key);
    } else {
        ++baton_unread_requests;
        if (!(size >= 4 && !pj_memcmp(text, "ACK ", 4)) && baton_within_share(key, false)) baton_answer_unread(rdata, text, size, why);
    }
    if (lost) pjsip_transport_shutdown(tp);
    else baton_conn_ended(tp);
}

}  // namespace
%}

%inline %{
/* Requests and responses that could not be read. */
unsigned long baton_requests_unread() { return baton_unread_requests; }
unsigned long baton_responses_unread() { return baton_unread_responses; }
%}
