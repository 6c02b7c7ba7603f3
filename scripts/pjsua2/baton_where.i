/* Where a leg's signalling and audio come from and go to: addresses in what we send, and whose RTP is taken.
 *
 * PJSIP names the default route's address wherever a socket is bound to all of them, and the first listener's everywhere else.
 * Here each message with a session description, and each Contact over UDP, is given the address by which its receiver reaches
 * us: of the socket that it leaves by, or by the route to where it goes; and of the listener that has this address, its public one.
 *
 * RTP is taken from the address that the session description told. Behind a NAT that address is of no use: where the book says
 * so, or where the description tells a private address and the message came from another, the first source that is heard is
 * the one (from the host that the message came from, where the book says nothing).
 */
%{
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace {

struct baton_ear_post { int type; std::string address, shown; int port; };  /* a listener; `shown` is its public address */
std::vector<baton_ear_post> baton_posts;
std::string baton_rtp_bound;  /* empty: RTP sockets hear every address */
std::vector<baton_net> baton_nats;  /* of dialers whose RTP may come from elsewhere than they say */
pj_sockaddr baton_here;  /* from where the message that is being read came, and by what */
pjsip_transport *baton_here_by = NULL;
pj_sockaddr baton_from[PJSUA_MAX_CALLS];  /* of the offer that a call came with */

struct baton_route { std::string local; long long at_ns; };
std::map<std::string, baton_route> baton_routes;
const long long BATON_ROUTE_NS = 30000000000LL;  /* a route may change; to ask costs three calls of the system */

std::string baton_name_of(const pj_sockaddr *address) {
    char text[PJ_INET6_ADDRSTRLEN];
    return address->addr.sa_family && pj_sockaddr_print(address, text, sizeof(text), 0) ? text : "";
}

/* The address of ours by which the system sends to `to`; empty where there is no way. */
std::string baton_route_to(const pj_sockaddr *to) {
    const std::string name = baton_name_of(to);
    if (name.empty()) return name;
    const long long now_ns = baton_now_ns();
    std::map<std::string, baton_route>::iterator found = baton_routes.find(name);
    if (found != baton_routes.end() && now_ns - found->second.at_ns < BATON_ROUTE_NS) return found->second.local;
    if (baton_routes.size() > 4096) baton_routes.clear();
    baton_route route;
    route.at_ns = now_ns;
    pj_sockaddr target, local;
    pj_sockaddr_cp(&target, to);
    if (!pj_sockaddr_get_port(&target)) pj_sockaddr_set_port(&target, 9);
    int length = sizeof(local);
    pj_sock_t sock = PJ_INVALID_SOCKET;
    if (pj_sock_socket(target.addr.sa_family, pj_SOCK_DGRAM() | pj_SOCK_CLOEXEC(), 0, &sock) == PJ_SUCCESS) {
        if (pj_sock_connect(sock, &target, pj_sockaddr_get_len(&target)) == PJ_SUCCESS
            && pj_sock_getsockname(sock, &local, &length) == PJ_SUCCESS)
            route.local = baton_name_of(&local);
        pj_sock_close(sock);
    }
    baton_routes[name] = route;
    return route.local;
}

bool baton_is_any(const std::string &address) { return address.empty() || address == "0.0.0.0" || address == "::"; }

/* How the address `local` is shown to the far end: the listener's public one, where one has it. */
std::string baton_shown(const std::string &local, int type, int port) {
    const baton_ear_post *best = NULL;
    int rank = 0;
    for (size_t i = 0; i < baton_posts.size(); ++i) {
        const baton_ear_post &one = baton_posts[i];
        const bool any = baton_is_any(one.address);
        if (!any && one.address != local) continue;
        if (any && (one.address.find(':') == std::string::npos) != (local.find(':') == std::string::npos)) continue;
        const int mine = 1 + (any ? 0 : 4) + (one.type == type ? 1 : 0) + (one.type == type && one.port == port ? 2 : 0);
        if (mine > rank) { rank = mine; best = &one; }
    }
    return best && !best->shown.empty() ? best->shown : std::string();
}

void baton_put_address(pj_pool_t *pool, pj_str_t *where, const std::string &address) {
    if (pj_strcmp2(where, address.c_str())) pj_strdup2(pool, where, address.c_str());
}

void baton_put_conn(pj_pool_t *pool, pjmedia_sdp_conn *conn, const std::string &address) {
    if (conn && !pj_strcmp2(&conn->addr_type, address.find(':') == std::string::npos ? "IP4" : "IP6")
        && pj_strcmp2(&conn->addr, "0.0.0.0"))
        baton_put_address(pool, &conn->addr, address);
}

void baton_put_sdp(pj_pool_t *pool, pjmedia_sdp_session *sdp, const std::string &address) {
    const char *family = address.find(':') == std::string::npos ? "IP4" : "IP6";
    if (!pj_strcmp2(&sdp->origin.addr_type, family)) baton_put_address(pool, &sdp->origin.addr, address);
    baton_put_conn(pool, sdp->conn, address);
    for (unsigned i = 0; i < sdp->media_count; ++i) {
        pjmedia_sdp_media *media = sdp->media[i];
        baton_put_conn(pool, media->conn, address);
        pjmedia_sdp_attr *attr = pjmedia_sdp_media_find_attr2(media, "rtcp", NULL);
        pjmedia_sdp_rtcp_attr rtcp;
        if (!attr || pjmedia_sdp_attr_get_rtcp(attr, &rtcp) != PJ_SUCCESS || pj_strcmp2(&rtcp.addr_type, family)) continue;
        char value[PJ_INET6_ADDRSTRLEN + 32];
        pj_ansi_snprintf(value, sizeof(value), "%u IN %s %s", rtcp.port, family, address.c_str());
        pj_strdup2(pool, &attr->value, value);
    }
}

/* Before a message is printed. */
pj_status_t baton_where_tx(pjsip_tx_data *tdata) {
    pjsip_transport *tp = tdata->tp_info.transport;
    pjsip_contact_hdr *contact = (pjsip_contact_hdr *)pjsip_msg_find_hdr(tdata->msg, PJSIP_H_CONTACT, NULL);
    const bool udp = tp && (tp->key.type & ~PJSIP_TRANSPORT_IPV6) == PJSIP_TRANSPORT_UDP;
    if (!tp || (!tdata->msg->body && !(contact && udp)) || tdata->buf.cur != tdata->buf.start) return PJ_SUCCESS;
    std::string local = baton_name_of(&tp->local_addr);
    if (!pj_sockaddr_has_addr(&tp->local_addr)) local = baton_route_to(&tdata->tp_info.dst_addr);
    const int port = pj_sockaddr_get_port(&tp->local_addr);
    const std::string shown = baton_shown(local, tp->key.type, port);
    if (udp && contact && !contact->star && !local.empty()
        && tdata->msg->line.req.method.id != PJSIP_REGISTER_METHOD) {
        pjsip_sip_uri *uri = (pjsip_sip_uri *)pjsip_uri_get_uri(contact->uri);
        baton_put_address(tdata->pool, &uri->host, shown.empty() ? local : shown);
        uri->port = port;
    }
    if (!tdata->msg->body) return PJ_SUCCESS;
    pjmedia_sdp_session *sdp = pjsip_tdata_get_sdp_info(tdata)->sdp;
    const std::string audio = !shown.empty() ? shown : !baton_rtp_bound.empty() ? baton_rtp_bound : local;
    if (sdp && !audio.empty()) baton_put_sdp(tdata->pool, sdp, audio);
    return PJ_SUCCESS;
}

/* Whether we speak one of the codecs of a line. */
bool baton_speaks(const pjmedia_sdp_media *media) {
    for (unsigned i = 0; i < media->desc.fmt_count; ++i) {
        const std::string name = baton_encoding(media, &media->desc.fmt[i]);
        if (name == "pcmu" || name == "pcma" || name == "g722" || name == "opus") return true;
    }
    return false;
}

/* Why a line of audio cannot be served, with its code of RFC 3261 section 20.43; NULL where it can. */
const char *baton_line_fault(const pjmedia_sdp_session *sdp, const pjmedia_sdp_media *media, pjmedia_srtp_use srtp) {
    const pjmedia_sdp_conn *conn = media->conn ? media->conn : sdp->conn;
    const pj_uint32_t proto = pjmedia_sdp_transport_get_proto(&media->desc.transport);
    const bool keyed = pjmedia_sdp_media_find_attr2(media, "crypto", NULL) != NULL;
    if (conn && pj_strcmp2(&conn->addr_type, "IP4")) return "300 baton \"IPv4 only\"";
    if (!PJMEDIA_TP_PROTO_HAS_FLAG(proto, PJMEDIA_TP_PROTO_RTP_AVP) || proto == PJMEDIA_TP_PROTO_UNKNOWN)
        return "302 baton \"audio over RTP only\"";
    if (PJMEDIA_TP_PROTO_HAS_FLAG(proto, PJMEDIA_TP_PROFILE_SRTP)) {
        if (srtp == PJMEDIA_SRTP_DISABLED) return "302 baton \"encryption is off\"";
        if (!keyed) return "306 baton \"encryption without a key\"";
    } else if (srtp == PJMEDIA_SRTP_MANDATORY && !keyed) return "302 baton \"encryption is asked for\"";
    return baton_speaks(media) ? NULL : "305 baton \"no codec of ours\"";
}

/* Why a description that a call begins with cannot be served; NULL where it can, and where PJSIP says that it is none. */
const char *baton_offer_fault(const pjsip_rdata_sdp_info *info) {
    if (info->sdp_err == PJMEDIA_SDP_EINCONN) return "301 baton \"not the address of a host\"";
    if (!info->sdp || !info->sdp->media_count) return NULL;
    const pjmedia_srtp_use srtp = pjsua_var.acc[pjsua_acc_get_default()].cfg.use_srtp;
    const char *why = "304 baton \"no line of audio that is open\"";
    for (unsigned m = 0; m < info->sdp->media_count; ++m) {
        const pjmedia_sdp_media *media = info->sdp->media[m];
        if (pj_stricmp2(&media->desc.media, "audio") || !media->desc.port) continue;
        why = baton_line_fault(info->sdp, media, srtp);
        if (!why) return NULL;
    }
    return why;
}

/* 488 to an INVITE whose offer cannot be served (RFC 3261 section 21.4.26), before anything rings. */
bool baton_refuse_offer(pjsip_rx_data *rdata) {
    if (rdata->msg_info.msg->line.req.method.id != PJSIP_INVITE_METHOD || rdata->msg_info.to->tag.slen
        || !rdata->msg_info.msg->body || !pjsua_acc_is_valid(pjsua_acc_get_default()))
        return false;
    const char *why = baton_offer_fault(pjsip_rdata_get_sdp_info(rdata));
    if (!why) return false;
    ++baton_offers_refused;
    pjsip_hdr list;
    pj_list_init(&list);
    pj_str_t name = { (char *)"Warning", 7 }, value = { (char *)why, (pj_ssize_t)strlen(why) };
    pj_list_push_back(&list, (pjsip_hdr *)pjsip_generic_string_hdr_create(rdata->tp_info.pool, &name, &value));
    pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, PJSIP_SC_NOT_ACCEPTABLE_HERE, NULL, &list, NULL);
    return true;
}

pj_bool_t baton_where_rx(pjsip_rx_data *rdata) {
    pj_sockaddr_cp(&baton_here, &rdata->pkt_info.src_addr);
    baton_here_by = rdata->tp_info.transport;
    return rdata->msg_info.msg->type == PJSIP_REQUEST_MSG && baton_refuse_offer(rdata);
}

pjsip_module baton_where_module = {
    NULL, NULL, { (char *)"mod-baton-where", 15 }, -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER + 1,
    NULL, NULL, NULL, NULL, &baton_where_rx, &baton_where_rx, &baton_where_tx, &baton_where_tx, NULL
};

/* A description of ours is made. It answers an offer: remember who made that. A call that begins with ours has had none, and
 * what the call before it in this slot had is forgotten. */
void baton_where_offer(pjsua_call_id id, bool offered) {
    const pjsip_inv_session *inv = pjsua_var.calls[id].inv;
    if (!offered) {
        if (!inv || inv->state == PJSIP_INV_STATE_NULL) pj_bzero(&baton_from[id], sizeof(baton_from[id]));
    } else if (inv && (inv->state == PJSIP_INV_STATE_NULL || inv->state == PJSIP_INV_STATE_CONFIRMED)) {
        pj_sockaddr_cp(&baton_from[id], &baton_here);
    }
}

/* A stream is about to be made: whose packets may it hear? */
void baton_on_stream(pjsua_call_id id, pjsua_on_stream_precreate_param *param) {
    pjsua_call *call = &pjsua_var.calls[id];
    if (param->stream_idx >= call->med_cnt || param->stream_info.type != PJMEDIA_TYPE_AUDIO) return;
    pjmedia_transport *tp = call->media[param->stream_idx].tp_orig;
    if (!tp || tp->type != PJMEDIA_TRANSPORT_TYPE_UDP) return;
    const bool uas = call->inv->role == PJSIP_ROLE_UAS;
    const pj_sockaddr *from = pjmedia_sdp_neg_was_answer_remote(call->inv->neg) ? &baton_here : &baton_from[id];
    const bool nat = uas ? baton_net_of(baton_nats, baton_key_of(from)) != NULL : baton_wishes[id].nat;
    const bool other = !baton_same_host(&param->stream_info.info.aud.rem_addr, from);  /* than what it told */
    pjmedia_transport_udp_latch(tp, nat ? PJMEDIA_UDP_LATCH_ANY : other ? PJMEDIA_UDP_LATCH_HOST : PJMEDIA_UDP_LATCH_TOLD, from);
}

}  // namespace
%}

%inline %{
/* Start to look at messages. To be called once after baton_media_start. Returns a pj_status_t. */
int baton_where_start() {
    baton_posts.clear();
    baton_rtp_bound.clear();
    baton_nats.clear();
    baton_routes.clear();
    baton_here_by = NULL;
    baton_where_module.id = -1;
    pjsua_var.ua_cfg.cb.on_stream_precreate = &baton_on_stream;
    return pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &baton_where_module);
}

/* A listener: PJSIP's transport type, its address and port, and the address that is shown for it (empty: its own). */
void baton_listens(int type, const std::string &address, int port, const std::string &shown) {
    baton_ear_post one;
    one.type = type;
    one.address = address;
    one.port = port;
    one.shown = shown;
    baton_posts.push_back(one);
}

/* The address that RTP sockets are bound to; empty: all. */
void baton_rtp_binds(const std::string &address) { baton_rtp_bound = baton_is_any(address) ? std::string() : address; }

/* Networks of dialers behind a NAT: lines of "address/prefix". Returns how many were understood. */
int baton_nat_networks(const std::string &lines) { return baton_read_networks(lines, baton_nats); }

/* The address of ours by which the system sends to an address; empty where there is no way. */
std::string baton_local_for(const std::string &host) {
    pj_sockaddr to;
    pj_str_t text = { (char *)host.c_str(), (pj_ssize_t)host.size() };
    const int family = host.find(':') == std::string::npos ? pj_AF_INET() : pj_AF_INET6();
    char literal[16];
    if (pj_inet_pton(family, &text, literal) != PJ_SUCCESS || pj_sockaddr_init(family, &to, &text, 0) != PJ_SUCCESS)
        return std::string();
    return baton_route_to(&to);
}

/* What is said within a call that came over UDP goes by the listener that it came to, where there are several, unless its
 * Contact asks for another transport. To be called while its INVITE is read. */
void baton_keep_to_listener(int id) {
    if (id < 0 || id >= (int)pjsua_var.ua_cfg.max_calls || !baton_here_by || !pjsua_var.calls[id].inv) return;
    if (baton_posts.size() < 2 || !(baton_here_by->flag & PJSIP_TRANSPORT_DATAGRAM)) return;
    const pjsip_dialog *dlg = pjsua_var.calls[id].inv->dlg;
    if (!PJSIP_URI_SCHEME_IS_SIP(dlg->target) || !pj_list_empty(&dlg->route_set)) return;
    const pj_str_t *asked = &((const pjsip_sip_uri *)pjsip_uri_get_uri(dlg->target))->transport_param;
    if (asked->slen && pj_stricmp2(asked, "udp")) return;
    pjsip_tpselector by;
    pj_bzero(&by, sizeof(by));
    by.type = PJSIP_TPSELECTOR_TRANSPORT;
    by.u.transport = baton_here_by;
    pjsip_dlg_set_transport(pjsua_var.calls[id].inv->dlg, &by);
}

/* RTP and RTCP packets of strangers that were dropped. */
unsigned long baton_rtp_strangers() { return pjmedia_transport_udp_strangers(); }
%}
