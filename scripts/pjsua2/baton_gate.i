/* Who may speak to us at all, availability by OPTIONS, and probes of trunks.
 *
 * The gate looks at requests outside dialogs (no To tag) before anything else does, the tap included: a source that is
 * in no network gets no answer and costs no more than the look. Locked-out sources are dropped whatever network they are
 * in. Requests within dialogs pass: they come from trunks and are known by their tags.
 *
 * OPTIONS outside dialogs are handed to Python as text and wait, bounded, for the answer that Python decides on.
 */
%{
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace {

struct baton_net { int family; unsigned char address[16]; int prefix; };
std::vector<baton_net> baton_networks;
std::map<std::string, long long> baton_locked;  /* source -> until, ns of CLOCK_MONOTONIC */
bool baton_gate_on = false;
unsigned long baton_gate_count = 0;
std::string baton_gate_last;

const size_t BATON_ASKED_LIMIT = 256;
struct baton_asked { long id; pjsip_rx_data *rdata; long long at_ns; };
std::deque<baton_asked> baton_asks;
long baton_asked_serial = 0;
std::string baton_asked_text;
std::string baton_probe_text;

long long baton_now_ns() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

bool baton_is_within(const baton_net &net, const pj_sockaddr *from) {
    const unsigned char *address = (const unsigned char *)pj_sockaddr_get_addr(from);
    if (net.family != from->addr.sa_family) return false;
    const int whole = net.prefix / 8, rest = net.prefix % 8;
    if (memcmp(net.address, address, whole)) return false;
    return !rest || !((net.address[whole] ^ address[whole]) & (0xff << (8 - rest)) & 0xff);
}

bool baton_in_networks(const pj_sockaddr *from) {
    for (size_t i = 0; i < baton_networks.size(); ++i)
        if (baton_is_within(baton_networks[i], from)) return true;
    return false;
}

/* Lines of "address/prefix"; returns how many were understood. */
int baton_read_networks(const std::string &lines, std::vector<baton_net> &into) {
    std::vector<baton_net> found;
    size_t at = 0;
    while (at < lines.size()) {
        size_t end = lines.find('\n', at);
        if (end == std::string::npos) end = lines.size();
        const std::string line = lines.substr(at, end - at);
        const size_t slash = line.find('/');
        at = end + 1;
        if (slash == std::string::npos) continue;
        std::string host = line.substr(0, slash);
        baton_net net;
        memset(&net, 0, sizeof(net));
        net.family = host.find(':') == std::string::npos ? pj_AF_INET() : pj_AF_INET6();
        net.prefix = atoi(line.c_str() + slash + 1);
        pj_str_t text = { (char *)host.c_str(), (pj_ssize_t)host.size() };
        if (pj_inet_pton(net.family, &text, net.address) == PJ_SUCCESS) found.push_back(net);
    }
    into.swap(found);
    return (int)into.size();
}

void baton_port_turn(int account);

bool baton_is_locked_out(const char *source) {
    if (baton_locked.empty()) return false;
    std::map<std::string, long long>::iterator found = baton_locked.find(source);
    if (found == baton_locked.end()) return false;
    if (found->second > baton_now_ns()) return true;
    baton_locked.erase(found);
    return false;
}

/* Nobody whose requests are answered. */
bool baton_is_stranger(const pj_sockaddr *from, const char *name) {
    return baton_is_locked_out(name) || (baton_gate_on && !baton_in_networks(from));
}

pj_bool_t baton_gate_rx(pjsip_rx_data *rdata) {
    if (rdata->msg_info.to && rdata->msg_info.to->tag.slen && rdata->msg_info.from && rdata->msg_info.cid
        && (!baton_gate_on || pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag,
                                                   &rdata->msg_info.from->tag, PJ_FALSE)))
        return baton_refuse_cut(rdata);  /* within a dialog of ours: from a trunk, or a dialer */
    if (baton_is_stranger(&rdata->pkt_info.src_addr, rdata->pkt_info.src_name)) {
        ++baton_gate_count;
        baton_gate_last = rdata->pkt_info.src_name;
        return PJ_TRUE;
    }
    if (baton_refuse_cut(rdata)) return PJ_TRUE;
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_INVITE_METHOD) baton_port_turn(pjsua_acc_get_default());
    return PJ_FALSE;
}

pjsip_module baton_gate_module = {
    NULL, NULL, { (char *)"mod-baton-gate", 14 }, -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 2,
    NULL, NULL, NULL, NULL, &baton_gate_rx, &baton_refuse_cut, NULL, NULL, NULL
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
    baton_asked_text.push_back('\x1f');
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
    baton_locked.clear();
    baton_gate_on = false;
    baton_gate_module.id = baton_options_module.id = -1;
    pj_status_t status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_gate_module);
    if (status != PJ_SUCCESS) return status;
    status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_options_module);
    return status == PJ_SUCCESS ? baton_whole_start() : status;
}

/* Let only these networks in: lines of "address/prefix". `on` false lets everyone in. Returns how many were understood. */
int baton_gate_networks(const std::string &lines, bool on) {
    baton_gate_on = on;
    return baton_read_networks(lines, baton_networks);
}

/* Drop whatever comes from this address for so many milliseconds; 0 lifts it. */
void baton_gate_lock(const std::string &source, int for_ms) {
    if (for_ms > 0) baton_locked[source] = baton_now_ns() + for_ms * 1000000LL;
    else baton_locked.erase(source);
}

/* Requests dropped so far, and where the last one came from. */
unsigned long baton_gate_dropped() { return baton_gate_count; }
std::string baton_gate_last_source() { return baton_gate_last; }

/* OPTIONS that wait for an answer: id, source, message, each ended by 0x1f, the record by 0x1e. */
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
