/* Dialogs in hand, in a file that outlives the process, and their end by the next router.
 *
 * A router that dies (kill -9, a crash) leaves agents in dead calls, and endpoints ringing. Each INVITE that leaves or is
 * answered, and each dialog that is made or changed, is appended to a file in one write(2), which the kernel keeps whatever
 * becomes of the process; so is its end. The file holds what a CANCEL, a BYE or a final answer takes, and nothing else: no
 * lead, no media. Losing power loses it.
 *
 * A record: CRC-32 in hex, a blank, its length, a line feed, then fields as netstrings ("3:abc,"), and a line feed:
 *   kind: I an INVITE of ours, A one that we answer, D a dialog, O it is over
 *   our tag, lower case
 * and but for O: transport type, address it goes to, our own name there (host:port), how trunks over TLS are dialled (Python's
 * words), and the head of a message: the INVITE, our provisional answer, or the BYE to be.
 */
%{
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <pjlib-util/crc32.h>

namespace {

struct baton_hand {
    char kind;
    std::string record;    /* as it stands in the file */
    const void *contact;   /* of a dialog: another one is another record */
    int type;              /* of the transport */
    std::string to, name, words;
    long long alive_ns;
};
std::unordered_map<std::string, baton_hand> baton_hands;  /* by our tag */
std::unordered_map<int, std::string> baton_trunk_words;   /* by account */
std::string baton_hand_path;
int baton_hand_fd = -1;
size_t baton_hand_bytes = 0, baton_hand_live = 0;
unsigned long baton_hand_failures = 0;
const size_t BATON_HAND_MOST = 8u << 20;  /* bytes: then the file is written anew with what is in hand */
const pj_int32_t BATON_CSEQ_AHEAD = 1000000;  /* above any request of the dialog's; RFC 3261 section 12.2.2 allows a gap */
const size_t BATON_LEFT_MOST = 16384;  /* PJSIP_MAX_DIALOG_COUNT */

void baton_netstring(std::string &out, const std::string &text) {
    char head[24];
    pj_ansi_snprintf(head, sizeof(head), "%lu:", (unsigned long)text.size());
    out += head;
    out += text;
    out.push_back(',');
}

std::string baton_record_of(const std::string &payload) {
    char head[40];
    pj_ansi_snprintf(head, sizeof(head), "%08lx %lu\n",
                     (unsigned long)pj_crc32_calc((const pj_uint8_t *)payload.data(), payload.size()),
                     (unsigned long)payload.size());
    return head + payload + "\n";
}

bool baton_write_all(int fd, const std::string &text) {
    const ssize_t done = write(fd, text.data(), text.size());  /* in one: what a kill leaves is whole, or its end is missing */
    return done == (ssize_t)text.size();
}

/* A record is not in the file, or not all of it (a full disk): the file is to be written anew. */
bool baton_hand_lacks = false;

/* Write the file anew with what is in hand. The old one stays where that fails. */
void baton_hand_renew() {
    const std::string fresh = baton_hand_path + ".new";
    const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    std::string all;
    for (std::unordered_map<std::string, baton_hand>::iterator one = baton_hands.begin(); one != baton_hands.end(); ++one)
        all += one->second.record;
    if (fd < 0 || !baton_write_all(fd, all) || rename(fresh.c_str(), baton_hand_path.c_str())) {
        ++baton_hand_failures;
        if (fd >= 0) close(fd);
        unlink(fresh.c_str());
        baton_hand_bytes = 0;  /* try again only after as much again */
        return;
    }
    baton_hand_lacks = false;
    if (baton_hand_fd >= 0) close(baton_hand_fd);
    baton_hand_fd = fd;
    baton_hand_bytes = all.size();
}

void baton_hand_append(const std::string &record) {
    if (!baton_write_all(baton_hand_fd, record)) { ++baton_hand_failures; baton_hand_lacks = true; }
    baton_hand_bytes += record.size();
    if (baton_hand_bytes > BATON_HAND_MOST + 4 * baton_hand_live) baton_hand_renew();
}

/* Of a message as it goes over the wire, its first line and the headers that name and route it. */
std::string baton_head_of(const char *text, size_t size, bool first) {
    static const char *const KEPT[] = { "via:", "v:", "route:", "from:", "f:", "to:", "t:", "call-id:", "i:", "cseq:" };
    std::string out;
    bool keep = first;
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && text[end] != '\n') ++end;
        if (end < size) ++end;
        if (text[at] == '\r' || text[at] == '\n') break;
        if (at > 0 && text[at] != ' ' && text[at] != '\t') {
            keep = false;
            for (size_t i = 0; !keep && i < sizeof(KEPT) / sizeof(*KEPT); ++i)
                keep = end - at > strlen(KEPT[i]) && !pj_ansi_strnicmp(text + at, KEPT[i], strlen(KEPT[i]));
        }
        if (keep) out.append(text + at, end - at);
        at = end;
    }
    return out;
}

std::string baton_number(long number) {
    char text[24];
    pj_ansi_snprintf(text, sizeof(text), "%ld", number);
    return text;
}

std::string baton_host_port(const pjsip_host_port *name) {
    return std::string(name->host.ptr, name->host.slen) + ":" + baton_number(name->port);
}

/* Take what ends it into hand; where it goes and how is known from what was in hand before, unless `tp` says it anew. */
void baton_hand_put(char kind, const std::string &tag, const pjsip_transport *tp, const pj_sockaddr *to,
                    const std::string &words, const std::string &message, const void *contact) {
    if (baton_hand_fd < 0 || message.empty()) return;
    baton_hand &hand = baton_hands[tag];
    if (tp) {
        char address[PJ_INET6_ADDRSTRLEN + 10];
        hand.type = tp->key.type;
        hand.name = baton_host_port(&tp->local_name);
        hand.to = pj_sockaddr_print(to, address, sizeof(address), 3);
        hand.words = words;
    }
    std::string payload;
    baton_netstring(payload, std::string(1, kind));
    baton_netstring(payload, tag);
    baton_netstring(payload, baton_number(hand.type));
    baton_netstring(payload, hand.to);
    baton_netstring(payload, hand.name);
    baton_netstring(payload, hand.words);
    baton_netstring(payload, message);
    std::string record = baton_record_of(payload);
    baton_hand_live += record.size() - hand.record.size();
    hand.kind = kind;
    hand.contact = contact;
    hand.alive_ns = baton_now_ns();
    hand.record.swap(record);
    baton_hand_append(hand.record);
}

void baton_hand_over(const std::string &own) {
    const std::string tag = own;  /* it may be the key that is erased */
    std::unordered_map<std::string, baton_hand>::iterator found = baton_hands.find(tag);
    if (found == baton_hands.end()) return;
    baton_hand_live -= found->second.record.size();
    baton_hands.erase(found);
    if (baton_hand_fd < 0) return;
    if (baton_hands.empty() && baton_hand_bytes > 65536) {
        if (ftruncate(baton_hand_fd, 0)) ++baton_hand_failures;
        else { baton_hand_bytes = 0; return; }
    }
    std::string payload;
    baton_netstring(payload, "O");
    baton_netstring(payload, tag);
    baton_hand_append(baton_record_of(payload));
}

/* An INVITE of ours has been refused. One that is sent again, with credentials or to where a 3xx sends it, is a new one. */
void baton_hand_refused(const pjsip_rx_data *rdata) {
    if (baton_hand_fd < 0) return;
    std::unordered_map<std::string, baton_hand>::iterator found = baton_hands.find(baton_own(&rdata->msg_info.from->tag));
    if (found != baton_hands.end() && found->second.kind == 'I') baton_hand_over(found->first);
}

std::string baton_words_of(const pjsip_dialog *dlg) {
    const pjsua_call *call = dlg ? (const pjsua_call *)dlg->mod_data[pjsua_var.mod.id] : NULL;
    if (baton_trunk_words.empty() || !call) return std::string();
    std::unordered_map<int, std::string>::const_iterator found = baton_trunk_words.find(call->acc_id);
    return found == baton_trunk_words.end() ? std::string() : found->second;
}

/* A request of ours is handed to the transport; `first`: an INVITE that was not sent there before. */
void baton_hand_request(const pjsip_tx_data *tdata, bool first) {
    if (baton_hand_fd < 0) return;
    const pjsip_method_e id = tdata->msg->line.req.method.id;
    const pjsip_from_hdr *from = (const pjsip_from_hdr *)pjsip_msg_find_hdr(tdata->msg, PJSIP_H_FROM, NULL);
    const pjsip_to_hdr *to = (const pjsip_to_hdr *)pjsip_msg_find_hdr(tdata->msg, PJSIP_H_TO, NULL);
    if (!from || !to) return;
    if (id == PJSIP_CANCEL_METHOD || id == PJSIP_BYE_METHOD) baton_hand_over(baton_own(&from->tag));
    else if (first && !to->tag.slen)
        baton_hand_put('I', baton_own(&from->tag), tdata->tp_info.transport, &tdata->tp_info.dst_addr,
                       baton_words_of(pjsip_tdata_get_dlg((pjsip_tx_data *)tdata)),
                       baton_head_of(tdata->buf.start, tdata->buf.cur - tdata->buf.start, true), NULL);
}

/* An answer of ours to an INVITE that begins a call is handed to the transport. */
pj_status_t baton_hand_response(pjsip_tx_data *tdata) {
    if (baton_hand_fd < 0) return PJ_SUCCESS;
    const pjsip_cseq_hdr *cseq = (const pjsip_cseq_hdr *)pjsip_msg_find_hdr(tdata->msg, PJSIP_H_CSEQ, NULL);
    const pjsip_dialog *dlg = pjsip_tdata_get_dlg(tdata);
    if (!dlg || !cseq || cseq->method.id != PJSIP_INVITE_METHOD || dlg->role != PJSIP_ROLE_UAS) return PJ_SUCCESS;
    const std::string tag = baton_own(&dlg->local.info->tag);
    std::unordered_map<std::string, baton_hand>::iterator found = baton_hands.find(tag);
    const int code = tdata->msg->line.status.code;
    if (code >= 300 && found != baton_hands.end() && found->second.kind == 'A') baton_hand_over(tag);
    const pjsip_inv_session *inv = pjsip_dlg_get_inv_session((pjsip_dialog *)dlg);
    if (code < 200 && found == baton_hands.end() && (!inv || inv->state < PJSIP_INV_STATE_CONNECTING))
        baton_hand_put('A', tag, tdata->tp_info.transport, &tdata->tp_info.dst_addr, std::string(),
                       baton_head_of(tdata->buf.start, tdata->buf.cur - tdata->buf.start, false), NULL);
    return PJ_SUCCESS;
}

void baton_print_header(std::string &out, void *header) {
    char text[PJSIP_MAX_URL_SIZE + 512];
    const int size = pjsip_hdr_print_on(header, text, sizeof(text));
    if (size > 0) { out.append(text, size); out += "\r\n"; return; }
    std::vector<char> large(PJSIP_MAX_PKT_LEN);  /* a tag may be as long as a datagram */
    const int more = pjsip_hdr_print_on(header, &large[0], large.size());
    if (more > 0) { out.append(&large[0], more); out += "\r\n"; }
}

/* The BYE of a dialog. */
std::string baton_bye_of(const pjsip_dialog *dlg) {
    char uri[PJSIP_MAX_URL_SIZE];
    const int size = (int)pjsip_uri_print(PJSIP_URI_IN_REQ_URI, dlg->target, uri, sizeof(uri));
    if (size < 1) return std::string();
    std::string out = "BYE " + std::string(uri, size) + " SIP/2.0\r\n";
    for (const pjsip_route_hdr *one = dlg->route_set.next; one != &dlg->route_set; one = one->next)
        baton_print_header(out, (void *)one);
    baton_print_header(out, dlg->local.info);
    baton_print_header(out, dlg->remote.info);
    out += "Call-ID: " + std::string(dlg->call_id->id.ptr, dlg->call_id->id.slen) + "\r\n";
    return out + "CSeq: " + baton_number((long)dlg->local.cseq + BATON_CSEQ_AHEAD) + " BYE\r\n";
}

/* A call's dialog has been made, or its far end has moved. */
void baton_hand_dialog(const pjsua_call *call) {
    const pjsip_inv_session *inv = call->inv;
    if (baton_hand_fd < 0 || !inv || !inv->dlg) return;
    const pjsip_dialog *dlg = inv->dlg;
    const std::string tag = baton_own(&dlg->local.info->tag);
    std::unordered_map<std::string, baton_hand>::iterator found = baton_hands.find(tag);
    if (found == baton_hands.end()) return;  /* over already */
    found->second.alive_ns = baton_now_ns();
    if (inv->state != PJSIP_INV_STATE_CONNECTING && inv->state != PJSIP_INV_STATE_CONFIRMED) return;
    if (found->second.kind == 'D' && found->second.contact == dlg->remote.contact) return;
    baton_hand_put('D', tag, NULL, NULL, std::string(), baton_bye_of(dlg), dlg->remote.contact);
}

/* --- what a router that died has left --- */

struct baton_left {
    char kind;
    std::string tag, to, name, words, message, call_id;
    pj_sockaddr address;
    int type, account, times;
    pjsip_tx_data *invite;  /* of kind I: to acknowledge its final answer by */
    bool done;
    long long at_ns;
};
std::vector<baton_left> baton_lefts;
unsigned long baton_left_unread = 0, baton_left_sent[3] = { 0, 0, 0 }, baton_left_unsent = 0;  /* CANCEL, BYE, refused */

bool baton_read_netstring(const std::string &text, size_t &at, std::string &field) {
    size_t mark = text.find(':', at);
    if (mark == std::string::npos || mark == at || mark - at > 9) return false;
    for (size_t i = at; i < mark; ++i) if (!pj_isdigit(text[i])) return false;
    const size_t size = (size_t)atol(text.c_str() + at);
    if (size > text.size() - mark - 1 || mark + 1 + size >= text.size() || text[mark + 1 + size] != ',') return false;
    field = text.substr(mark + 1, size);
    at = mark + 1 + size + 1;
    return true;
}

bool baton_read_left(const std::string &payload, baton_left &left) {
    size_t at = 0;
    std::string kind, type;
    if (!baton_read_netstring(payload, at, kind) || kind.size() != 1 || !baton_read_netstring(payload, at, left.tag)) return false;
    left.kind = kind[0];
    if (left.kind == 'O') return at == payload.size();
    if (!strchr("IAD", left.kind)) return false;
    if (!baton_read_netstring(payload, at, type) || !baton_read_netstring(payload, at, left.to) || !baton_read_netstring(payload, at, left.name)
        || !baton_read_netstring(payload, at, left.words) || !baton_read_netstring(payload, at, left.message) || at != payload.size())
        return false;
    left.type = atoi(type.c_str());
    left.account = PJSUA_INVALID_ID;
    left.times = 0;
    left.invite = NULL;
    left.done = false;
    const pj_str_t address = { (char *)left.to.data(), (pj_ssize_t)left.to.size() };
    return pj_sockaddr_parse(pj_AF_UNSPEC(), 0, &address, &left.address) == PJ_SUCCESS;
}

/* Read what stands in the file; after what cannot be read the next line that begins a record is looked for. */
void baton_left_read(const std::string &all) {
    std::vector<std::string> order;
    std::unordered_map<std::string, baton_left> found;
    bool lost = false;
    for (size_t at = 0; at < all.size();) {
        unsigned long crc = 0;
        size_t size = 0, head = at;
        while (head < all.size() && head - at < 8 && pj_isxdigit(all[head])) crc = crc * 16 + pj_hex_digit_to_val(all[head++]);
        bool whole = head - at == 8 && head < all.size() && all[head] == ' ';
        const size_t digits = ++head;
        while (whole && head < all.size() && head - digits < 7 && pj_isdigit(all[head])) size = size * 10 + (all[head++] - '0');
        whole = whole && head > digits && head < all.size() && all[head] == '\n' && size < all.size() - head - 1;
        const size_t begin = head + 1;
        whole = whole && all[begin + size] == '\n' && pj_crc32_calc((const pj_uint8_t *)all.data() + begin, size) == crc;
        baton_left left;
        if (whole && baton_read_left(all.substr(begin, size), left)) {
            lost = false;
            at = begin + size + 1;
            if (left.kind == 'O') found.erase(left.tag);
            else { if (!found.count(left.tag)) order.push_back(left.tag); found[left.tag] = left; }
            continue;
        }
        if (!lost) ++baton_left_unread;
        lost = true;
        const size_t next = all.find('\n', at);
        at = next == std::string::npos ? all.size() : next + 1;
    }
    for (size_t i = 0; i < order.size() && baton_lefts.size() < BATON_LEFT_MOST; ++i)
        if (found.count(order[i])) { baton_lefts.push_back(found[order[i]]); found.erase(order[i]); }
    baton_left_unread += found.size();  /* above what a router can have */
}

/* The listener that had this name. False where there is none: then any of its kind will do. */
bool baton_left_way(const baton_left &left, pjsip_tpselector *way) {
    pj_bzero(way, sizeof(*way));
    if (left.account != PJSUA_INVALID_ID) { pjsua_init_tpselector(left.account, way); return true; }
    for (unsigned i = 0; i < PJ_ARRAY_SIZE(pjsua_var.tpdata); ++i) {
        if (!pjsua_var.tpdata[i].data.ptr || (int)pjsua_var.tpdata[i].type != left.type) continue;
        const bool datagram = pjsua_var.tpdata[i].type == PJSIP_TRANSPORT_UDP || pjsua_var.tpdata[i].type == PJSIP_TRANSPORT_UDP6;
        const pjsip_host_port *name =
            datagram ? &pjsua_var.tpdata[i].data.tp->local_name : &pjsua_var.tpdata[i].data.factory->addr_name;
        if (datagram && baton_host_port(name) != left.name) continue;
        way->type = datagram ? PJSIP_TPSELECTOR_TRANSPORT : PJSIP_TPSELECTOR_LISTENER;
        if (datagram) way->u.transport = pjsua_var.tpdata[i].data.tp;
        else way->u.listener = pjsua_var.tpdata[i].data.factory;
        return true;
    }
    return false;
}

pjsip_tx_data *baton_left_message(const baton_left &left, const std::string &text) {
    pjsip_tx_data *tdata = NULL;
    if (pjsip_endpt_create_tdata(pjsua_get_pjsip_endpt(), &tdata) != PJ_SUCCESS) return NULL;
    pjsip_tx_data_add_ref(tdata);
    char *copy = (char *)pj_pool_alloc(tdata->pool, text.size() + 1);
    memcpy(copy, text.data(), text.size());
    copy[text.size()] = 0;
    tdata->msg = pjsip_parse_msg(tdata->pool, copy, text.size(), NULL);
    if (!tdata->msg || !pjsip_msg_find_hdr(tdata->msg, PJSIP_H_FROM, NULL) || !pjsip_msg_find_hdr(tdata->msg, PJSIP_H_TO, NULL)
        || !pjsip_msg_find_hdr(tdata->msg, PJSIP_H_CSEQ, NULL) || !pjsip_msg_find_hdr(tdata->msg, PJSIP_H_CALL_ID, NULL)
        || (left.kind != 'D' && !pjsip_msg_find_hdr(tdata->msg, PJSIP_H_VIA, NULL))) {
        pjsip_tx_data_dec_ref(tdata);
        return NULL;
    }
    return tdata;
}

void baton_why_left(pjsip_tx_data *tdata) {
    const pj_str_t name = { (char *)"Reason", 6 }, value = { (char *)"SIP;cause=503;text=\"Router restarted\"", 37 };
    pjsip_msg_add_hdr(tdata->msg, (pjsip_hdr *)pjsip_generic_string_hdr_create(tdata->pool, &name, &value));
}

/* A BYE goes where its target says, as PJSIP's own would. */
void baton_set_way(pjsip_tx_data *tdata, const baton_left &left) {
    pjsip_tpselector way;
    if ((left.kind == 'I' || left.account != PJSUA_INVALID_ID) && baton_left_way(left, &way))
        pjsip_tx_data_set_transport(tdata, &way);
    if (left.kind != 'I') return;
    tdata->dest_info.addr.count = 1;
    tdata->dest_info.addr.entry[0].type = (pjsip_transport_type_e)left.type;
    pj_sockaddr_cp(&tdata->dest_info.addr.entry[0].addr, &left.address);
    tdata->dest_info.addr.entry[0].addr_len = pj_sockaddr_get_len(&left.address);
}

/* CANCEL with the INVITE's own branch and way (RFC 3261 section 9.1). It may have answered meanwhile: baton_on_stray. */
bool baton_left_cancel(baton_left &left) {
    pjsip_tx_data *cancel = NULL;
    left.invite = baton_left_message(left, left.message + "Max-Forwards: 70\r\n\r\n");
    if (!left.invite || left.invite->msg->type != PJSIP_REQUEST_MSG
        || left.invite->msg->line.req.method.id != PJSIP_INVITE_METHOD) return false;
    baton_set_way(left.invite, left);
    const pjsip_cid_hdr *cid = (const pjsip_cid_hdr *)pjsip_msg_find_hdr(left.invite->msg, PJSIP_H_CALL_ID, NULL);
    left.call_id.assign(cid->id.ptr, cid->id.slen);
    if (pjsip_endpt_create_cancel(pjsua_get_pjsip_endpt(), left.invite, &cancel) != PJ_SUCCESS) return false;
    baton_set_way(cancel, left);
    baton_why_left(cancel);
    return pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), cancel, -1, NULL, NULL) == PJ_SUCCESS;
}

bool baton_left_bye(baton_left &left) {
    pjsip_tx_data *bye = baton_left_message(left, left.message + "Max-Forwards: 70\r\n\r\n");
    if (!bye || bye->msg->type != PJSIP_REQUEST_MSG || bye->msg->line.req.method.id != PJSIP_BYE_METHOD) return false;
    baton_set_way(bye, left);
    baton_why_left(bye);
    return pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), bye, -1, NULL, NULL) == PJ_SUCCESS;
}

/* The dialer's INVITE had no final answer: 503 (RFC 3261 section 21.5.4), to where our provisional one went. */
bool baton_left_refuse(baton_left &left) {
    pjsip_tx_data *answer = baton_left_message(left, "SIP/2.0 503 Service Unavailable\r\n" + left.message + "\r\n");
    if (!answer || answer->msg->type != PJSIP_RESPONSE_MSG) return false;
    pjsip_to_hdr *to = (pjsip_to_hdr *)pjsip_msg_find_hdr(answer->msg, PJSIP_H_TO, NULL);
    const pjsip_via_hdr *via = (const pjsip_via_hdr *)pjsip_msg_find_hdr(answer->msg, PJSIP_H_VIA, NULL);
    if (!to->tag.slen) {
        const pj_str_t tag = { (char *)left.tag.data(), (pj_ssize_t)left.tag.size() };
        pj_strdup(answer->pool, &to->tag, &tag);
    }
    baton_why_left(answer);
    pjsip_response_addr where;
    pjsip_tpselector way;
    pj_bzero(&where, sizeof(where));
    pj_sockaddr_cp(&where.addr, &left.address);
    const bool known = baton_left_way(left, &way);
    if (known) pjsip_tx_data_set_transport(answer, &way);
    const bool datagram = left.type == PJSIP_TRANSPORT_UDP || left.type == PJSIP_TRANSPORT_UDP6;
    if (!datagram) {  /* the connection died with the router: a new one, to the port that Via names (RFC 3261 section 18.2.2) */
        const int port = via->sent_by.port;
        pj_sockaddr_set_port(&where.addr, (pj_uint16_t)(port ? port : pjsip_transport_get_default_port_for_type(
            (pjsip_transport_type_e)left.type)));
    }
    where.addr_len = pj_sockaddr_get_len(&where.addr);
    pj_status_t status = pjsip_endpt_acquire_transport(pjsua_get_pjsip_endpt(), (pjsip_transport_type_e)left.type, &where.addr,
                                                       where.addr_len, known ? &way : NULL, &where.transport);
    if (status == PJ_SUCCESS) {
        status = pjsip_endpt_send_response(pjsua_get_pjsip_endpt(), &where, answer, NULL, NULL);
        pjsip_transport_dec_ref(where.transport);
    }
    if (status != PJ_SUCCESS) pjsip_tx_data_dec_ref(answer);
    return status == PJ_SUCCESS;
}

/* An answer to an INVITE of a router that died, other than 2xx: a final one wants its ACK (RFC 3261 section 17.1.1.3). True
 * where it is one. */
bool baton_left_answered(pjsip_rx_data *rdata) {
    for (size_t i = 0; i < baton_lefts.size(); ++i) {
        baton_left &left = baton_lefts[i];
        if (!left.invite || left.tag != baton_own(&rdata->msg_info.from->tag)) continue;
        if (pj_strcmp2(&rdata->msg_info.cid->id, left.call_id.c_str()) || !baton_same_host(&left.address, &rdata->pkt_info.src_addr))
            return false;
        pjsip_tx_data *ack = NULL;
        if (rdata->msg_info.msg->line.status.code >= 300
            && pjsip_endpt_create_ack(pjsua_get_pjsip_endpt(), left.invite, rdata, &ack) == PJ_SUCCESS) {
            baton_set_way(ack, left);
            baton_send_once(ack);
        }
        return true;
    }
    return false;
}

/* The dialer has acknowledged our 503. */
void baton_left_acknowledged(const pjsip_rx_data *rdata) {
    for (size_t i = 0; i < baton_lefts.size(); ++i)
        if (baton_lefts[i].kind == 'A' && baton_lefts[i].tag == baton_own(&rdata->msg_info.to->tag)) baton_lefts[i].done = true;
}

void baton_left_forget(size_t at) {
    if (baton_lefts[at].invite) pjsip_tx_data_dec_ref(baton_lefts[at].invite);
    baton_lefts.erase(baton_lefts.begin() + at);
}

}  // namespace
%}

%inline %{
/* Read the file of the router that was here before. Returns how many dialogs it has left, -1 where the file cannot be read
 * (errno's text by baton_left_error). */
std::string baton_left_problem;
int baton_left_load(const std::string &path) {
    baton_lefts.clear();
    baton_hands.clear();
    baton_trunk_words.clear();
    baton_hand_path = path;
    std::string all;
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) return 0;
    char part[65536];
    ssize_t size = -1;
    while (fd >= 0 && (size = read(fd, part, sizeof(part))) > 0) all.append(part, size);
    if (size < 0) baton_left_problem = strerror(errno);
    if (fd >= 0) close(fd);
    if (size < 0) return -1;
    baton_left_read(all);
    return (int)baton_lefts.size();
}
std::string baton_left_error() { return baton_left_problem; }

/* How the n-th was dialled (Python's words, empty where nothing was said), and the account to end it by. */
std::string baton_left_words(int at) { return at >= 0 && at < (int)baton_lefts.size() ? baton_lefts[at].words : std::string(); }
void baton_left_account(int at, int account) { if (at >= 0 && at < (int)baton_lefts.size()) baton_lefts[at].account = account; }

/* End them all, and begin to keep our own. Returns 0, or errno of the file. */
int baton_left_end() {
    for (size_t i = 0; i < baton_lefts.size(); ++i) {
        baton_left &left = baton_lefts[i];
        left.at_ns = baton_now_ns();
        const bool sent = left.kind == 'I' ? baton_left_cancel(left) : left.kind == 'D' ? baton_left_bye(left) : baton_left_refuse(left);
        if (sent) ++baton_left_sent[left.kind == 'I' ? 0 : left.kind == 'D' ? 1 : 2];
        else ++baton_left_unsent;
        left.done = !sent || left.kind == 'D';
    }
    if (baton_hand_fd >= 0) close(baton_hand_fd);
    baton_hand_fd = open(baton_hand_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    baton_hand_bytes = baton_hand_live = 0;
    baton_hand_lacks = false;
    if (baton_hand_fd < 0) return errno;
    return fchmod(baton_hand_fd, 0600) ? errno : 0;
}

/* To be called once a second: 503 again where no ACK has come (four times in all), what has changed is written down. */
void baton_left_sweep() {
    const long long now_ns = baton_now_ns();
    for (size_t i = baton_lefts.size(); i-- > 0;) {
        baton_left &left = baton_lefts[i];
        if (left.kind == 'A' && !left.done && ++left.times < 4) baton_left_refuse(left);
        if (left.done || now_ns - left.at_ns > BATON_LATE_NS) baton_left_forget(i);
    }
    if (baton_hand_fd < 0) return;
    for (unsigned i = 0; i < pjsua_var.ua_cfg.max_calls; ++i)
        if (pjsua_var.calls[i].inv) baton_hand_dialog(&pjsua_var.calls[i]);
    std::vector<std::string> over;
    for (std::unordered_map<std::string, baton_hand>::iterator one = baton_hands.begin(); one != baton_hands.end(); ++one)
        if (now_ns - one->second.alive_ns > 3000000000LL) over.push_back(one->first);
    for (size_t i = 0; i < over.size(); ++i) baton_hand_over(over[i]);
    if (baton_hand_lacks) baton_hand_renew();
}

/* What of a router that died was ended by CANCEL, by BYE, by 503; what could not be sent; records that could not be read;
 * writes of the file that failed. */
unsigned long baton_left_cancels() { return baton_left_sent[0]; }
unsigned long baton_left_byes() { return baton_left_sent[1]; }
unsigned long baton_left_refusals() { return baton_left_sent[2]; }
unsigned long baton_left_failed() { return baton_left_unsent; }
unsigned long baton_left_unreadable() { return baton_left_unread; }
unsigned long baton_hand_failed() { return baton_hand_failures; }

/* How trunks of an account are dialled, to be kept with its INVITEs. */
void baton_hand_words(int account, const std::string &words) { baton_trunk_words[account] = words; }

/* The library is about to go: all has been hung up, nothing is in hand. */
void baton_hand_close() {
    for (std::unordered_map<std::string, baton_sent>::iterator one = baton_sents.begin(); one != baton_sents.end(); ++one)
        baton_hold(one->second, NULL);
    for (size_t i = baton_lefts.size(); i-- > 0;) baton_left_forget(i);
    if (baton_hand_fd >= 0) close(baton_hand_fd);
    baton_hand_fd = -1;
    baton_hands.clear();
}
%}
