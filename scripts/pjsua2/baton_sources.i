/* Whom we read at all, and how much of it: sources, shares, connections.
 *
 * A datagram is judged by its source before anything is made of it (gate.patch). Read is what comes from a dialer's network and
 * from an address that we have sent to: trunks answer from there, and their requests within dialogs come from there. Of
 * all others, who may legally send within a dialog (RFC 3261 section 12.2.2), so many a second are read, and the gate
 * drops what fits no dialog. Where strangers are to be answered (no gate) more of them are read, and never all.
 *
 * Each dialer has a bucket of requests outside dialogs; what is above its share is turned away without a call's cost.
 *
 * Connections are judged at accept, before TLS begins: a stranger's is closed, and so is one too many. They are closed again
 * where no message comes, where one does not end, and where nothing comes and no call came by them. All of it runs on
 * the one thread that drives PJSIP.
 */
%{
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

const long long BATON_SENT_NS = 24 * 3600 * BATON_SECOND;  /* an address that we have sent to is known for so long */
const size_t BATON_SENT_LIMIT = 20000;
const double BATON_STRAY_A_SECOND = 20;       /* of strangers that get no answer: their requests within dialogs */
const double BATON_STRANGERS_A_SECOND = 100;  /* of strangers that do */
const long long BATON_HEADER_NS = 30 * BATON_SECOND;  /* for a connection's first message, and for each to end */
const long long BATON_IDLE_NS = 300 * BATON_SECOND;   /* a keep-alive is sent at least every 120 s: RFC 5626 section 4.4.1 */
const size_t BATON_CALLS_LIMIT = 1024;  /* Call-IDs that a connection remembers before it forgets those that are over */

struct baton_key {
    unsigned long long high, low;
    bool operator==(const baton_key &other) const { return high == other.high && low == other.low; }
    bool operator<(const baton_key &other) const { return high != other.high ? high < other.high : low < other.low; }
};
struct baton_key_hash {
    size_t operator()(const baton_key &key) const { return (size_t)((key.high ^ key.low) * 0x9E3779B97F4A7C15ULL); }
};
struct baton_net { unsigned char address[16]; int prefix, dialer; };
struct baton_bucket { double tokens; long long at_ns; };
struct baton_known { long long until_ns; bool trunk; };

std::vector<baton_net> baton_networks;  /* IPv4 as ::ffff:0:0/96 */
std::vector<baton_bucket> baton_buckets;  /* two of each dialer: calls, and all else */
double baton_share = 500, baton_burst = 1000;
bool baton_gate_on = false;
baton_bucket baton_stray_bucket = { 0, 0 };
std::map<baton_key, long long> baton_locked;  /* source -> until, ns of CLOCK_MONOTONIC */
std::unordered_map<baton_key, baton_known, baton_key_hash> baton_sent_to;
std::set<baton_key> baton_trunks;  /* of the book, by address */
unsigned long baton_gate_count = 0, baton_over_share = 0;
baton_key baton_gate_last = { 0, 0 };

void baton_spread(int family, const void *address, unsigned char *out) {
    memset(out, 0, 16);
    if (family == pj_AF_INET()) {
        out[10] = out[11] = 0xff;
        memcpy(out + 12, address, 4);
    } else {
        memcpy(out, address, 16);
    }
}

baton_key baton_key_of(const unsigned char *spread) {
    baton_key key;
    memcpy(&key.high, spread, 8);
    memcpy(&key.low, spread + 8, 8);
    return key;
}

baton_key baton_key_of(const pj_sockaddr_t *from) {
    unsigned char spread[16];
    baton_spread(((const pj_sockaddr *)from)->addr.sa_family, pj_sockaddr_get_addr(from), spread);
    return baton_key_of(spread);
}

bool baton_key_from(const std::string &host, unsigned char *spread) {
    const int family = host.find(':') == std::string::npos ? pj_AF_INET() : pj_AF_INET6();
    unsigned char address[16];
    pj_str_t text = { (char *)host.c_str(), (pj_ssize_t)host.size() };
    if (pj_inet_pton(family, &text, address) != PJ_SUCCESS) return false;
    baton_spread(family, address, spread);
    return true;
}

std::string baton_key_text(const baton_key &key) {
    unsigned char spread[16];
    memcpy(spread, &key.high, 8);
    memcpy(spread + 8, &key.low, 8);
    char text[PJ_INET6_ADDRSTRLEN] = "";
    const baton_key v4 = baton_key_of(spread);
    const bool mapped = !v4.high && spread[8] == 0 && spread[9] == 0 && spread[10] == 0xff && spread[11] == 0xff;
    pj_inet_ntop(mapped ? pj_AF_INET() : pj_AF_INET6(), mapped ? spread + 12 : spread, text, sizeof(text));
    return text;
}

/* The first of these networks that an address is in; NULL: none. */
const baton_net *baton_net_of(const std::vector<baton_net> &networks, const baton_key &key) {
    unsigned char address[16];
    memcpy(address, &key.high, 8);
    memcpy(address + 8, &key.low, 8);
    for (size_t i = 0; i < networks.size(); ++i) {
        const baton_net &net = networks[i];
        const int whole = net.prefix / 8, rest = net.prefix % 8;
        if (memcmp(net.address, address, whole)) continue;
        if (rest && ((net.address[whole] ^ address[whole]) & (0xff << (8 - rest)) & 0xff)) continue;
        return &net;
    }
    return NULL;
}

/* Whose network it is; -1: nobody's. */
int baton_dialer_of(const baton_key &key) {
    const baton_net *net = baton_net_of(baton_networks, key);
    return net ? net->dialer : -1;
}

/* Lines of "address/prefix", with the number of a dialer behind a blank or without; returns how many were understood. */
int baton_read_networks(const std::string &lines, std::vector<baton_net> &into) {
    std::vector<baton_net> found;
    for (size_t at = 0; at < lines.size();) {
        size_t end = lines.find('\n', at);
        if (end == std::string::npos) end = lines.size();
        const std::string line = lines.substr(at, end - at);
        const size_t slash = line.find('/'), space = line.find(' ');
        at = end + 1;
        baton_net net;
        if (slash == std::string::npos || !baton_key_from(line.substr(0, slash), net.address)) continue;
        net.prefix = atoi(line.c_str() + slash + 1) + (line.find(':') < slash ? 0 : 96);
        net.dialer = space == std::string::npos ? 0 : atoi(line.c_str() + space + 1);
        if (net.dialer < 0 || net.dialer > 65535 || net.prefix > 128) continue;
        found.push_back(net);
    }
    into.swap(found);
    return (int)into.size();
}

bool baton_take(baton_bucket &bucket, double rate, double burst, long long now_ns) {
    bucket.tokens += (double)(now_ns - bucket.at_ns) * rate / (double)BATON_SECOND;
    if (bucket.tokens > burst) bucket.tokens = burst;
    bucket.at_ns = now_ns;
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
}

/* One request outside dialogs more of this source's; false where its dialer has had its share. What is no call has a share of its
 * own, half as large: no flood of it takes a call's place. */
bool baton_within_share(const baton_key &key, bool call) {
    const int dialer = baton_dialer_of(key);
    if (dialer < 0 || 2 * (size_t)dialer + 1 >= baton_buckets.size()) return true;  /* strangers have theirs before */
    const double part = call ? 1 : 0.5;
    if (baton_take(baton_buckets[2 * dialer + (call ? 0 : 1)], part * baton_share, part * baton_burst, baton_now_ns())) return true;
    ++baton_over_share;
    return false;
}

bool baton_is_locked_out(const baton_key &key) {
    if (baton_locked.empty()) return false;
    std::map<baton_key, long long>::iterator found = baton_locked.find(key);
    if (found == baton_locked.end()) return false;
    if (found->second > baton_now_ns()) return true;
    baton_locked.erase(found);
    return false;
}

void baton_dropped_of(const baton_key &key) {
    ++baton_gate_count;
    baton_gate_last = key;
}

/* Nobody whose requests are answered. */
bool baton_is_stranger(const pj_sockaddr *from) {
    const baton_key key = baton_key_of(from);
    return baton_is_locked_out(key) || (baton_gate_on && baton_dialer_of(key) < 0);
}

bool baton_was_sent_to(const baton_key &key, bool as_trunk) {
    std::unordered_map<baton_key, baton_known, baton_key_hash>::const_iterator found = baton_sent_to.find(key);
    return found != baton_sent_to.end() && found->second.until_ns > baton_now_ns() && (!as_trunk || found->second.trunk);
}

/* A trunk of the book: by its address, or by where a name of it led us. */
bool baton_is_trunk(const pj_sockaddr *from) {
    const baton_key key = baton_key_of(from);
    return baton_trunks.count(key) || baton_was_sent_to(key, true);
}

/* A request of ours goes there; `trunk`: it is one that only trunks get. */
void baton_note_sent(const pj_sockaddr *to, bool trunk) {
    const baton_key key = baton_key_of(to);
    const long long now_ns = baton_now_ns();
    if (baton_sent_to.size() >= BATON_SENT_LIMIT && !baton_sent_to.count(key)) {
        std::unordered_map<baton_key, baton_known, baton_key_hash>::iterator oldest = baton_sent_to.begin(), one = oldest;
        for (int looked = 0; one != baton_sent_to.end() && looked < 64; ++one, ++looked)
            if (one->second.until_ns < oldest->second.until_ns) oldest = one;
        baton_sent_to.erase(oldest);
    }
    baton_known &sent = baton_sent_to[key];
    sent.until_ns = now_ns + BATON_SENT_NS;
    sent.trunk = sent.trunk || trunk;
}

pj_bool_t baton_may_read(const pj_sockaddr *from) {
    const baton_key key = baton_key_of(from);
    if (baton_was_sent_to(key, false) || baton_trunks.count(key)) return PJ_TRUE;
    if (baton_is_locked_out(key)) {
        baton_dropped_of(key);
        return PJ_FALSE;
    }
    if (baton_dialer_of(key) >= 0) return PJ_TRUE;
    const double rate = baton_gate_on ? BATON_STRAY_A_SECOND : BATON_STRANGERS_A_SECOND;
    if (baton_take(baton_stray_bucket, rate, 2 * rate, baton_now_ns())) return PJ_TRUE;
    baton_dropped_of(key);
    return PJ_FALSE;
}

/* --- connections --- */

struct baton_conn { baton_key key; long long at_ns, message_ns, part_ns; std::set<std::string> calls; };
std::map<pjsip_transport *, baton_conn> baton_conns;
std::map<baton_key, int> baton_conns_of;
std::deque<std::pair<long long, baton_key> > baton_greeted;  /* accepted, and not a transport yet: TLS takes its time */
unsigned baton_conn_limit = 1000, baton_conn_each = 100;
unsigned long baton_conn_refused = 0;
pjsip_tp_state_callback baton_tp_before = NULL;

void baton_conn_less(const baton_key &key) {
    std::map<baton_key, int>::iterator found = baton_conns_of.find(key);
    if (found != baton_conns_of.end() && --found->second <= 0) baton_conns_of.erase(found);
}

pj_bool_t baton_may_accept(const pj_sockaddr_t *from) {
    const baton_key key = baton_key_of(from);
    const long long now_ns = baton_now_ns();
    while (!baton_greeted.empty() && baton_greeted.front().first <= now_ns) {  /* it never became one */
        baton_conn_less(baton_greeted.front().second);
        baton_greeted.pop_front();
    }
    const bool known = baton_dialer_of(key) >= 0 || baton_trunks.count(key) || baton_was_sent_to(key, false);
    const size_t all = baton_conns.size() + baton_greeted.size();
    const std::map<baton_key, int>::const_iterator have = baton_conns_of.find(key);
    const unsigned each = have == baton_conns_of.end() ? 0 : (unsigned)have->second;
    if (baton_is_locked_out(key) || (!known && baton_gate_on) || all >= baton_conn_limit || each >= baton_conn_each
        || (!known && (all >= baton_conn_limit / 4 || each >= 8))) {
        ++baton_conn_refused;
        baton_gate_last = key;
        return PJ_FALSE;
    }
    ++baton_conns_of[key];
    baton_greeted.push_back(std::make_pair(now_ns + 2 * BATON_HEADER_NS, key));
    return PJ_TRUE;
}

void baton_on_transport(pjsip_transport *tp, pjsip_transport_state state, const pjsip_transport_state_info *info) {
    if (state == PJSIP_TP_STATE_CONNECTED && tp->dir == PJSIP_TP_DIR_INCOMING && !(tp->flag & PJSIP_TRANSPORT_DATAGRAM)
        && !baton_conns.count(tp)) {
        baton_conn one = baton_conn();
        one.key = baton_key_of(&tp->key.rem_addr);
        one.at_ns = baton_now_ns();
        for (size_t i = 0; i < baton_greeted.size(); ++i) {
            if (!(baton_greeted[i].second == one.key)) continue;
            baton_greeted.erase(baton_greeted.begin() + i);
            baton_conn_less(one.key);
            break;
        }
        ++baton_conns_of[one.key];
        baton_conns[tp] = one;
    } else if (state == PJSIP_TP_STATE_DESTROY) {
        std::map<pjsip_transport *, baton_conn>::iterator found = baton_conns.find(tp);
        if (found != baton_conns.end()) {
            baton_conn_less(found->second.key);
            baton_conns.erase(found);
        }
    }
    if (baton_tp_before) (*baton_tp_before)(tp, state, info);
}

/* Part of a message came, or a whole one. */
void baton_conn_part(pjsip_transport *tp) {
    std::map<pjsip_transport *, baton_conn>::iterator found = baton_conns.find(tp);
    if (found != baton_conns.end() && !found->second.part_ns) found->second.part_ns = baton_now_ns();
}

/* A message has ended that is none to us: it cannot be read, or is too large. */
void baton_conn_ended(pjsip_transport *tp) {
    std::map<pjsip_transport *, baton_conn>::iterator found = baton_conns.find(tp);
    if (found != baton_conns.end()) found->second.part_ns = 0;
}

std::set<std::string> baton_live_calls() {
    std::set<std::string> live;
    for (unsigned i = 0; i < pjsua_var.ua_cfg.max_calls; ++i) {
        const pjsua_call *call = &pjsua_var.calls[i];
        if (call->inv && call->inv->dlg && call->inv->dlg->call_id)
            live.insert(std::string(call->inv->dlg->call_id->id.ptr, call->inv->dlg->call_id->id.slen));
    }
    return live;
}

void baton_conn_forget(baton_conn &one, const std::set<std::string> &live) {
    for (std::set<std::string>::iterator call = one.calls.begin(); call != one.calls.end();) {
        if (live.count(*call)) ++call;
        else one.calls.erase(call++);
    }
}

void baton_conn_whole(const pjsip_rx_data *rdata) {
    if (rdata->tp_info.transport->flag & PJSIP_TRANSPORT_DATAGRAM) return;
    std::map<pjsip_transport *, baton_conn>::iterator found = baton_conns.find(rdata->tp_info.transport);
    if (found == baton_conns.end()) return;
    found->second.message_ns = baton_now_ns();
    found->second.part_ns = 0;
    const pjsip_msg *msg = rdata->msg_info.msg;
    if (msg->type != PJSIP_REQUEST_MSG || msg->line.req.method.id != PJSIP_INVITE_METHOD || !rdata->msg_info.cid) return;
    if (found->second.calls.size() >= BATON_CALLS_LIMIT) baton_conn_forget(found->second, baton_live_calls());
    found->second.calls.insert(std::string(rdata->msg_info.cid->id.ptr, rdata->msg_info.cid->id.slen));
}

bool baton_conn_is_over(pjsip_transport *tp, baton_conn &one, long long now_ns, std::set<std::string> &live, bool &looked) {
    if (one.part_ns && now_ns - one.part_ns > BATON_HEADER_NS) return true;
    if (!one.message_ns) return now_ns - one.at_ns > BATON_HEADER_NS;
    pj_timestamp now;
    pj_get_timestamp(&now);
    if (pj_elapsed_msec64(&tp->last_recv_ts, &now) * 1000000LL < (unsigned long long)BATON_IDLE_NS) return false;
    if (!looked) live = baton_live_calls();
    looked = true;
    baton_conn_forget(one, live);
    return one.calls.empty();
}

}  // namespace
%}

%inline %{
/* So many connections in all and from one address; requests outside dialogs a second of a dialer, and at once. */
void baton_limits(unsigned connections, unsigned each, double share, double burst) {
    baton_conn_limit = connections;
    baton_conn_each = each;
    baton_share = share;
    baton_burst = burst;
}

/* Close connections by which nothing comes; how many are left. To be called about once a second. */
unsigned baton_connections_look() {
    const long long now_ns = baton_now_ns();
    std::vector<pjsip_transport *> over;
    std::set<std::string> live;
    bool looked = false;
    for (std::map<pjsip_transport *, baton_conn>::iterator one = baton_conns.begin(); one != baton_conns.end(); ++one)
        if (!one->first->is_shutdown && baton_conn_is_over(one->first, one->second, now_ns, live, looked))
            over.push_back(one->first);
    for (size_t i = 0; i < over.size(); ++i) pjsip_transport_shutdown2(over[i], PJ_TRUE);
    return (unsigned)baton_conns.size();
}

/* Connections refused at accept; requests above a dialer's share. */
unsigned long baton_connections_refused() { return baton_conn_refused; }
unsigned long baton_requests_over_share() { return baton_over_share; }

/* Whether the address is in a dialer's network. */
bool baton_knows(const std::string &host) {
    unsigned char spread[16];
    return baton_key_from(host, spread) && baton_dialer_of(baton_key_of(spread)) >= 0;
}

/* Trunks of the book, an address a line: they may ask with OPTIONS. Names are known by where they led us. */
void baton_gate_trunks(const std::string &lines) {
    std::set<baton_key> found;
    for (size_t at = 0; at < lines.size();) {
        size_t end = lines.find('\n', at);
        if (end == std::string::npos) end = lines.size();
        unsigned char spread[16];
        if (baton_key_from(lines.substr(at, end - at), spread)) found.insert(baton_key_of(spread));
        at = end + 1;
    }
    baton_trunks.swap(found);
}
%}
