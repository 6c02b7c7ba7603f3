/* Media: codecs by name, redirects by list, digits, RTP that stops, prompts, and recordings on two channels.
 *
 * Callbacks of PJMEDIA's own threads (digits, frames) touch nothing but plain memory under a lock: no interpreter, no
 * pjsua2. Python drains them on its loop.
 */
%{
#include <errno.h>
#include <fcntl.h>
#include <mutex>
#include <unistd.h>

namespace {

/* --- codecs and redirects of one call --- */

struct baton_wish { std::string codecs, hosts; bool nat = false; };
baton_wish baton_wishes[PJSUA_MAX_CALLS];
baton_wish baton_next_wish;
bool baton_wish_waits = false;

std::string baton_lower(const char *text, size_t length) {
    std::string out(text, length);
    for (size_t i = 0; i < out.size(); ++i) out[i] = out[i] == ',' || out[i] < 0x21 ? '?' : (char)pj_tolower(out[i]);
    return out;
}

/* Encoding name of a payload type of an audio line, lower case; empty where it has none that we know. */
std::string baton_encoding(const pjmedia_sdp_media *media, const pj_str_t *fmt) {
    const pjmedia_sdp_attr *attr = pjmedia_sdp_media_find_attr2(media, "rtpmap", fmt);
    pjmedia_sdp_rtpmap map;
    if (attr && pjmedia_sdp_attr_get_rtpmap(attr, &map) == PJ_SUCCESS) return baton_lower(map.enc_name.ptr, map.enc_name.slen);
    switch (pj_strtoul(fmt)) {
    case 0: return "pcmu";
    case 8: return "pcma";
    case 9: return "g722";
    default: return std::string();
    }
}

void baton_where_offer(pjsua_call_id id, bool offered);

void baton_once(std::vector<pj_str_t> &list, const pj_str_t &fmt) {
    for (size_t i = 0; i < list.size(); ++i)
        if (!pj_strcmp(&list[i], &fmt)) return;
    list.push_back(fmt);
}

/* Keep of an audio line the codecs of `wanted` (lower case, comma after each), in that order, and what is no codec
 * (telephone-event, comfort noise). Where nothing would be left the line stays as it is. */
void baton_keep_codecs(pjmedia_sdp_media *media, const std::string &wanted) {
    if (pj_stricmp2(&media->desc.media, "audio") || wanted.empty()) return;
    std::vector<pj_str_t> kept, others;
    size_t at = 0;
    while (at < wanted.size()) {
        const size_t end = wanted.find(',', at);
        const std::string name = wanted.substr(at, end == std::string::npos ? end : end - at);
        at = end == std::string::npos ? wanted.size() : end + 1;
        for (unsigned i = 0; i < media->desc.fmt_count; ++i)
            if (baton_encoding(media, &media->desc.fmt[i]) == name) baton_once(kept, media->desc.fmt[i]);
    }
    if (kept.empty()) return;
    for (unsigned i = 0; i < media->desc.fmt_count; ++i) {
        const std::string name = baton_encoding(media, &media->desc.fmt[i]);
        if (name == "telephone-event" || name == "cn") baton_once(others, media->desc.fmt[i]);
    }
    for (size_t i = 0; i < others.size(); ++i) baton_once(kept, others[i]);
    if (kept.size() > media->desc.fmt_count) return;  /* each is one of the line's own: it cannot be */
    for (unsigned i = 0; i < media->attr_count;) {
        pjmedia_sdp_attr *attr = media->attr[i];
        const bool about = !pj_strcmp2(&attr->name, "rtpmap") || !pj_strcmp2(&attr->name, "fmtp");
        bool stays = !about;
        for (size_t k = 0; about && k < kept.size(); ++k)
            stays = stays || (attr->value.slen > kept[k].slen && !pj_memcmp(attr->value.ptr, kept[k].ptr, kept[k].slen)
                              && attr->value.ptr[kept[k].slen] == ' ');
        if (stays) ++i;
        else pjmedia_sdp_attr_remove(&media->attr_count, media->attr, attr);
    }
    for (size_t k = 0; k < kept.size(); ++k) media->desc.fmt[k] = kept[k];
    media->desc.fmt_count = (unsigned)kept.size();
}

unsigned long baton_offers_refused = 0;

/* PJSIP refuses what it cannot negotiate before anybody is told. */
void baton_on_rejected(const pjsua_on_rejected_incoming_call_param *param) {
    if (param->st_code == 400 || param->st_code == 406 || param->st_code == 415 || param->st_code == 488) ++baton_offers_refused;
}

void baton_on_sdp(pjsua_call_id id, pjmedia_sdp_session *sdp, pj_pool_t *, const pjmedia_sdp_session *offer) {
    baton_where_offer(id, offer != NULL);
    if (baton_wish_waits) {
        baton_wishes[id] = baton_next_wish;
        baton_wish_waits = false;
    }
    if (pjsua_var.calls[id].inv && pjsua_var.calls[id].inv->role == PJSIP_ROLE_UAS) return;  /* baton_answer_with */
    for (unsigned i = 0; i < sdp->media_count; ++i) baton_keep_codecs(sdp->media[i], baton_wishes[id].codecs);
}

pjsip_redirect_op baton_on_redirect(pjsua_call_id id, const pjsip_uri *target, const pjsip_event *) {
    if (!PJSIP_URI_SCHEME_IS_SIP(target) && !PJSIP_URI_SCHEME_IS_SIPS(target)) return PJSIP_REDIRECT_STOP;
    const pjsip_sip_uri *uri = (const pjsip_sip_uri *)pjsip_uri_get_uri(target);
    const std::string host = baton_lower(uri->host.ptr, uri->host.slen) + ",";
    const std::string allowed = "," + baton_wishes[id].hosts;
    return allowed.find("," + host) == std::string::npos ? PJSIP_REDIRECT_STOP : PJSIP_REDIRECT_ACCEPT_REPLACE;
}

/* --- RTP ports ---
 * pjsua keeps a cursor for each account and gives up after 100 busy ports: an account whose cursor stands still meets the
 * block that a busy one has taken. One cursor for all goes round the whole range. */

int baton_port_account = -1;

void baton_port_turn(int account) {
    if (account < 0 || account >= PJSUA_MAX_ACC) return;
    if (baton_port_account >= 0 && baton_port_account != account)
        pjsua_var.acc[account].next_rtp_port = pjsua_var.acc[baton_port_account].next_rtp_port;
    baton_port_account = account;
}

/* --- digits --- */

void baton_on_digit(pjsua_call_id id, const pjsua_dtmf_info *info) {
    const int digit = info->digit >= 0x20 && info->digit < 0x7f ? pj_toupper(info->digit) : 0;
    if (digit && strchr("0123456789ABCD*#", digit)) baton_press(id, (char)digit, info->method == PJSUA_DTMF_METHOD_SIP_INFO);
}

/* --- RTP that starts and stops --- */

struct baton_heard { bool watched, any, quiet; unsigned packets; long long at_ns; };
baton_heard baton_ears[PJSUA_MAX_CALLS];

/* The audio line that a call speaks by; NULL where none was agreed on. */
pjsua_call_media *baton_line(int id) {
    if (id < 0 || id >= (int)pjsua_var.ua_cfg.max_calls) return NULL;
    pjsua_call *call = &pjsua_var.calls[id];
    if (!call->inv || !call->inv->neg || call->hanging_up) return NULL;
    if (call->audio_idx < 0 || call->audio_idx >= (int)call->med_cnt) return NULL;
    pjsua_call_media *media = &call->media[call->audio_idx];
    return media->type == PJMEDIA_TYPE_AUDIO ? media : NULL;
}

/* True where PJSIP has ended an answered call by itself (its media could not be agreed on) and waits for the BYE's answer. */
bool baton_is_leaving(int id) {
    if (id < 0 || id >= (int)pjsua_var.ua_cfg.max_calls) return false;
    const pjsip_inv_session *inv = pjsua_var.calls[id].inv;
    return inv && inv->cause >= 300 && (inv->state == PJSIP_INV_STATE_CONNECTING || inv->state == PJSIP_INV_STATE_CONFIRMED);
}

/* The line that a call speaks by, where packets go at least one way. */
pjsua_call_media *baton_audio(int id) {
    pjsua_call_media *media = baton_line(id);
    return media && media->strm.a.stream ? media : NULL;
}

/* True where the line's RTP is encrypted. */
bool baton_is_encrypted(const pjsua_call_media *media) {
    if (!media || !media->tp) return false;
    pjmedia_transport_info info;
    pjmedia_transport_info_init(&info);
    if (pjmedia_transport_get_info(media->tp, &info) != PJ_SUCCESS) return false;
    for (unsigned i = 0; i < info.specific_info_cnt; ++i)
        if (info.spc_info[i].type == PJMEDIA_TRANSPORT_TYPE_SRTP)
            return ((pjmedia_srtp_info *)info.spc_info[i].buffer)->active != 0;
    return false;
}

/* True where the far end's line asks for encryption (RTP/SAVP, RFC 3711); PJSIP goes on without where we have it off. */
bool baton_wants_srtp(int id) {
    const pjmedia_sdp_session *sdp = NULL;
    const pjsua_call *call = &pjsua_var.calls[id];
    if (pjmedia_sdp_neg_get_active_remote(call->inv->neg, &sdp) != PJ_SUCCESS || call->audio_idx >= (int)sdp->media_count)
        return false;
    return PJMEDIA_TP_PROTO_HAS_FLAG(pjmedia_sdp_transport_get_proto(&sdp->media[call->audio_idx]->desc.transport),
                                     PJMEDIA_TP_PROFILE_SRTP);
}

/* True where the far end has said that it sends no audio (RFC 3264 sections 5.1 and 8.4: recvonly, inactive, a line with port
 * 0), or holds us, with or without music: that none comes is as it was negotiated. */
bool baton_may_be_silent(int id) {
    if (id < 0 || id >= (int)pjsua_var.ua_cfg.max_calls) return false;
    const pjsua_call *call = &pjsua_var.calls[id];
    if (!call->inv || call->hanging_up || call->inv->state != PJSIP_INV_STATE_CONFIRMED) return false;
    const pjsua_call_media *media = baton_audio(id);
    return !media || media->state == PJSUA_CALL_MEDIA_REMOTE_HOLD || !(media->dir & PJMEDIA_DIR_DECODING);
}

/* --- recordings --- */

const unsigned BATON_WAV_HEADER = 44;

struct baton_recording;
struct baton_channel { pjmedia_port port; baton_recording *recording; std::vector<pj_int16_t> waiting; unsigned long long count; };
struct baton_recording {
    baton_channel channel[2];
    pj_pool_t *pool;
    std::mutex lock;
    int slot[2], fd;
    unsigned rate, spf;
    unsigned long long bytes;
    long long began_ns, ended_ns;
    bool open, failed;
};
std::map<int, baton_recording *> baton_recordings;
std::vector<baton_recording *> baton_graveyard;
int baton_recording_serial = 0;

void baton_le(unsigned char *at, unsigned long value, int bytes) {
    for (int i = 0; i < bytes; ++i) at[i] = (unsigned char)(value >> (8 * i));
}

void baton_wav_header(unsigned char *head, unsigned rate, unsigned long data) {
    memcpy(head, "RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0", 24);
    baton_le(head + 4, data + BATON_WAV_HEADER - 8, 4);
    baton_le(head + 24, rate, 4);
    baton_le(head + 28, rate * 4, 4);
    baton_le(head + 32, 4, 2);
    baton_le(head + 34, 16, 2);
    memcpy(head + 36, "data", 4);
    baton_le(head + 40, data, 4);
}

/* Bring a channel up to the time: what was not heard is silence. */
void baton_pad(baton_channel *channel, long long now_ns, unsigned slack) {
    baton_recording *r = channel->recording;
    const unsigned long long due = (unsigned long long)(now_ns - r->began_ns) / 1000 * r->rate / 1000000;
    if (channel->count + slack < due) {
        channel->waiting.insert(channel->waiting.end(), (size_t)(due - channel->count), 0);
        channel->count = due;
    }
}

void baton_write_out(baton_recording *r, bool all) {
    const size_t ready = PJ_MIN(r->channel[0].waiting.size(), r->channel[1].waiting.size());
    if (!ready || (!all && ready < r->rate / 4)) return;  /* a quarter of a second at a time */
    std::vector<pj_int16_t> both(2 * ready);
    for (size_t i = 0; i < ready; ++i) {
        both[2 * i] = r->channel[0].waiting[i];
        both[2 * i + 1] = r->channel[1].waiting[i];
    }
    for (int side = 0; side < 2; ++side)
        r->channel[side].waiting.erase(r->channel[side].waiting.begin(), r->channel[side].waiting.begin() + ready);
    const char *bytes = (const char *)&both[0];
    size_t left = both.size() * sizeof(pj_int16_t);
    while (left) {
        const ssize_t done = write(r->fd, bytes, left);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) { r->failed = true; return; }
        bytes += done;
        left -= (size_t)done;
        r->bytes += (unsigned long long)done;
    }
}

pj_status_t baton_put(pjmedia_port *port, pjmedia_frame *frame) {
    baton_channel *channel = (baton_channel *)port->port_data.pdata;
    baton_recording *r = channel->recording;
    std::lock_guard<std::mutex> guard(r->lock);
    if (!r->open || r->failed) return PJ_SUCCESS;
    const long long now_ns = baton_now_ns();
    if (frame->type == PJMEDIA_FRAME_TYPE_AUDIO && frame->buf) {
        baton_pad(channel, now_ns, 3 * r->spf);
        const pj_int16_t *samples = (const pj_int16_t *)frame->buf;
        const size_t count = frame->size / sizeof(pj_int16_t);
        channel->waiting.insert(channel->waiting.end(), samples, samples + count);
        channel->count += count;
    }
    baton_channel *other = &r->channel[channel == &r->channel[0] ? 1 : 0];
    baton_pad(other, now_ns, r->rate);
    baton_write_out(r, false);
    return PJ_SUCCESS;
}

pj_status_t baton_get_nothing(pjmedia_port *, pjmedia_frame *frame) {
    frame->type = PJMEDIA_FRAME_TYPE_NONE;
    frame->size = 0;
    return PJ_SUCCESS;
}

void baton_bury(bool all) {
    const long long now_ns = baton_now_ns();
    for (size_t i = 0; i < baton_graveyard.size();) {
        baton_recording *r = baton_graveyard[i];
        if (!all && now_ns - r->ended_ns < 5000000000LL) { ++i; continue; }  /* the bridge lets go of ports on its own thread */
        baton_graveyard.erase(baton_graveyard.begin() + i);
        pj_pool_t *pool = r->pool;
        delete r;
        pj_pool_release(pool);
    }
}

}  // namespace
%}

%inline %{
/* Take over PJSIP's callbacks for digits, SDP and redirects. To be called once after baton_quiet. */
void baton_media_start() {
    pjsua_callback *cb = &pjsua_var.ua_cfg.cb;
    cb->on_call_sdp_created = &baton_on_sdp;
    cb->on_call_redirected = &baton_on_redirect;
    cb->on_rejected_incoming_call = &baton_on_rejected;
    cb->on_dtmf_digit = NULL;
    cb->on_dtmf_event = NULL;
    cb->on_dtmf_digit2 = &baton_on_digit;
    baton_port_account = -1;
    for (int i = 0; i < PJSUA_MAX_CALLS; ++i) { baton_wishes[i] = baton_wish(); memset(&baton_ears[i], 0, sizeof(baton_ears[i])); }
}

/* What the next call to be made may speak and where it may be sent on to (lower case, a comma after each word), and whether its
 * RTP may come from elsewhere than its answer says. */
void baton_wish_next(const std::string &codecs, const std::string &hosts, bool nat) {
    baton_next_wish.nat = nat;
    baton_next_wish.codecs = codecs;
    baton_next_wish.hosts = hosts;
    baton_wish_waits = true;
}

/* No call took up the wish: it must not go to another. */
void baton_wish_drop() { baton_wish_waits = false; }

/* A slot was taken by another call: nothing of the one before may stick to it. */
void baton_slot_new(int id) {
    if (id < 0 || id >= PJSUA_MAX_CALLS) return;
    baton_wishes[id] = baton_wish();
    memset(&baton_ears[id], 0, sizeof(baton_ears[id]));
}

/* Codecs in the far end's offer, in its order, lower case with a comma after each. Empty where there is none. */
std::string baton_offered(int id) {
    std::string out;
    if (id < 0 || id >= (int)pjsua_var.ua_cfg.max_calls) return out;
    const pjsua_call *call = &pjsua_var.calls[id];
    const pjmedia_sdp_session *sdp = NULL;
    if (!call->inv || !call->inv->neg) return out;
    if (pjmedia_sdp_neg_get_neg_remote(call->inv->neg, &sdp) != PJ_SUCCESS
        && pjmedia_sdp_neg_get_active_remote(call->inv->neg, &sdp) != PJ_SUCCESS) return out;
    for (unsigned m = 0; sdp && m < sdp->media_count; ++m) {
        if (pj_stricmp2(&sdp->media[m]->desc.media, "audio")) continue;
        for (unsigned i = 0; i < sdp->media[m]->desc.fmt_count; ++i) {
            const std::string name = baton_encoding(sdp->media[m], &sdp->media[m]->desc.fmt[i]);
            if (!name.empty() && name != "telephone-event" && name != "cn"
                && ("," + out).find("," + name + ",") == std::string::npos) out += name + ",";
        }
        break;
    }
    return out;
}

/* Calls whose offer PJSIP refused by itself. */
unsigned long baton_refused_offers() { return baton_offers_refused; }

/* Let the answer that waits to be sent name one codec only (with its comma), where the offer has it. */
void baton_answer_with(int id, const std::string &codec) {
    if (id < 0 || id >= (int)pjsua_var.ua_cfg.max_calls || ("," + baton_offered(id)).find("," + codec) == std::string::npos)
        return;
    const pjsua_call *call = &pjsua_var.calls[id];
    const pjmedia_sdp_session *sdp = NULL;
    if (!call->inv || !call->inv->neg || pjmedia_sdp_neg_get_neg_local(call->inv->neg, &sdp) != PJ_SUCCESS || !sdp) return;
    for (unsigned i = 0; i < sdp->media_count; ++i) baton_keep_codecs(sdp->media[i], codec);
}

/* The codec that a call's audio speaks, lower case; empty where it has none. */
std::string baton_codec(int id) {
    pjsua_call_media *media = baton_audio(id);
    pjmedia_stream_info info;
    if (!media || pjmedia_stream_get_info(media->strm.a.stream, &info) != PJ_SUCCESS) return std::string();
    return baton_lower(info.fmt.encoding_name.ptr, info.fmt.encoding_name.slen);
}

/* True where the call's RTP is encrypted. */
bool baton_encrypted(int id) { return baton_is_encrypted(baton_audio(id)); }

/* True where the far end has put us on hold (RFC 3264 section 8.4: sendonly or inactive; an inactive line has no stream). */
bool baton_held(int id) {
    const pjsua_call_media *media = baton_line(id);
    return media && media->state == PJSUA_CALL_MEDIA_REMOTE_HOLD;
}

/* True where both ends have agreed on audio, on hold or not; to be asked once PJSIP has seen the message that says so. */
bool baton_agreed(int id) {
    const pjsua_call_media *media = baton_line(id);
    if (!media || baton_is_leaving(id)) return false;
    if (pjmedia_sdp_neg_get_state(pjsua_var.calls[id].inv->neg) != PJMEDIA_SDP_NEG_STATE_DONE) return false;
    if (media->state == PJSUA_CALL_MEDIA_NONE || media->state == PJSUA_CALL_MEDIA_ERROR) return false;
    return !baton_wants_srtp(id) || baton_is_encrypted(media);
}

/* Digits pressed since the last time: call id, digit. */
unsigned long baton_digits_pending() {
    std::lock_guard<std::mutex> guard(baton_digit_lock);
    return (unsigned long)baton_digit_text.size();
}
std::string baton_digits_drain() {
    std::string out;
    std::lock_guard<std::mutex> guard(baton_digit_lock);
    out.swap(baton_digit_text);
    return out;
}

/* Send a digit: RFC 4733 where the far end takes it, else INFO. Returns a pj_status_t. */
int baton_digit_send(int id, const std::string &digit) {
    pj_str_t digits = { (char *)digit.c_str(), (pj_ssize_t)digit.size() };
    if (!baton_audio(id)) return PJ_ENOTFOUND;
    const pj_status_t status = pjsua_call_dial_dtmf(id, &digits);
    if (status != PJMEDIA_RTP_EREMNORFC2833) return status;
    pjsua_call_send_dtmf_param param;
    pjsua_call_send_dtmf_param_default(&param);
    param.method = PJSUA_DTMF_METHOD_SIP_INFO;
    param.digits = digits;
    return pjsua_call_send_dtmf(id, &param);
}

/* Watch a call's RTP, or stop. */
void baton_watch(int id, bool on) {
    if (id < 0 || id >= PJSUA_MAX_CALLS) return;
    memset(&baton_ears[id], 0, sizeof(baton_ears[id]));
    baton_ears[id].watched = on;
    baton_ears[id].at_ns = baton_now_ns();
}

/* What changed since the last look, a record each: call id, F (first packet), Q (none for quiet_ms) or H (heard again),
 * and the time in ns: of the look before which the last packet came for Q, of this look for the others. A party that may be
 * silent is not quiet. */
std::string baton_rtp_scan(int quiet_ms) {
    std::string out;
    const long long now_ns = baton_now_ns();
    for (unsigned id = 0; id < pjsua_var.ua_cfg.max_calls; ++id) {
        baton_heard *ear = &baton_ears[id];
        if (!ear->watched) continue;
        const bool silent = baton_may_be_silent((int)id);
        pjsua_call_media *media = baton_audio((int)id);
        pjmedia_rtcp_stat stat;
        stat.rx.pkt = ear->packets;
        if (media) { if (pjmedia_stream_get_stat(media->strm.a.stream, &stat) != PJ_SUCCESS) continue; }
        else if (!silent) continue;
        char what = 0;
        const unsigned packets = stat.rx.pkt;
        if (packets != ear->packets || silent) {
            if (packets && !ear->any) { what = 'F'; ear->any = true; }
            else if (ear->quiet) what = 'H';
            ear->quiet = false;
            ear->packets = packets;
            ear->at_ns = now_ns;
        } else if (ear->any && !ear->quiet && now_ns - ear->at_ns >= quiet_ms * 1000000LL) {
            ear->quiet = true;
            what = 'Q';
        }
        if (what) {
            char record[64];
            pj_ansi_snprintf(record, sizeof(record), "%u\x1f%c\x1f%lld\x1e", id, what, ear->at_ns);
            out += record;
        }
    }
    return out;
}

/* Play a WAV file to a conference port, once or again and again. Returns the player, or -1. */
int baton_play(const std::string &file, int sink, bool loop) {
    pj_str_t name = { (char *)file.c_str(), (pj_ssize_t)file.size() };
    pjsua_player_id player = PJSUA_INVALID_ID;
    if (pjsua_player_create(&name, loop ? 0 : PJMEDIA_FILE_NO_LOOP, &player) != PJ_SUCCESS) return -1;
    if (pjsua_conf_connect(pjsua_player_get_conf_port(player), sink) != PJ_SUCCESS) {
        pjsua_player_destroy(player);
        return -1;
    }
    return player;
}

/* Let another port hear the same player. Returns a pj_status_t. */
int baton_play_also(int player, int sink) { return pjsua_conf_connect(pjsua_player_get_conf_port(player), sink); }
void baton_play_end(int player) { pjsua_player_destroy(player); }

/* Record two conference ports on the left and right channel of a 16-bit WAV file, which must not exist. Returns the
 * recording, or -1. The ports are connected by baton_record_hear, again after each change of media. */
int baton_record(const std::string &file) {
    baton_bury(false);
    pjsua_conf_port_info info;
    if (pjsua_conf_get_port_info(0, &info) != PJ_SUCCESS) return -1;
    const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0) return -1;
    pj_pool_t *pool = pjsua_pool_create("baton-rec", 2048, 1024);
    baton_recording *r = new baton_recording();
    r->pool = pool;
    r->fd = fd;
    r->rate = info.clock_rate;
    r->spf = info.samples_per_frame;
    r->began_ns = baton_now_ns();
    r->open = true;
    r->slot[0] = r->slot[1] = -1;
    unsigned char head[BATON_WAV_HEADER];
    baton_wav_header(head, r->rate, 0);
    bool good = write(fd, head, sizeof(head)) == (ssize_t)sizeof(head);
    for (int side = 0; good && side < 2; ++side) {
        baton_channel *channel = &r->channel[side];
        memset(&channel->port, 0, sizeof(channel->port));
        channel->recording = r;
        pj_str_t name = { (char *)(side ? "rec-right" : "rec-left"), side ? 9 : 8 };
        pjmedia_port_info_init(&channel->port.info, &name, PJMEDIA_SIG_CLASS_PORT_AUD('B', 'R'), r->rate, 1, 16, r->spf);
        channel->port.port_data.pdata = channel;
        channel->port.put_frame = &baton_put;
        channel->port.get_frame = &baton_get_nothing;
        good = pjsua_conf_add_port(pool, &channel->port, &r->slot[side]) == PJ_SUCCESS;
    }
    const int id = ++baton_recording_serial;
    baton_recordings[id] = r;
    if (good) return id;
    r->failed = true;
    for (int side = 0; side < 2; ++side)
        if (r->slot[side] >= 0) pjsua_conf_remove_port(r->slot[side]);
    r->open = false;
    close(fd);
    unlink(file.c_str());
    r->ended_ns = baton_now_ns();
    baton_recordings.erase(id);
    baton_graveyard.push_back(r);
    return -1;
}

/* Let a channel (0: left, 1: right) of a recording hear a conference port. Returns a pj_status_t. */
int baton_record_hear(int id, int side, int source) {
    std::map<int, baton_recording *>::iterator found = baton_recordings.find(id);
    if (found == baton_recordings.end() || side < 0 || side > 1) return PJ_ENOTFOUND;
    return pjsua_conf_connect(source, found->second->slot[side]);
}

/* End a recording: what waits is written, the header is put right, the file closed. Bytes of audio, or -1 where the disk
 * failed on the way (what was written before stays). The caller syncs and renames. */
long baton_record_end(int id) {
    std::map<int, baton_recording *>::iterator found = baton_recordings.find(id);
    if (found == baton_recordings.end()) return -1;
    baton_recording *r = found->second;
    baton_recordings.erase(found);
    long bytes;
    {
        std::lock_guard<std::mutex> guard(r->lock);
        const long long now_ns = baton_now_ns();
        if (!r->failed) {
            for (int side = 0; side < 2; ++side) baton_pad(&r->channel[side], now_ns, 3 * r->spf);
            baton_write_out(r, true);
        }
        unsigned char head[BATON_WAV_HEADER];
        baton_wav_header(head, r->rate, (unsigned long)r->bytes);
        if (pwrite(r->fd, head, sizeof(head), 0) != (ssize_t)sizeof(head)) r->failed = true;
        close(r->fd);
        r->open = false;
        r->ended_ns = now_ns;
        bytes = r->failed ? -1 : (long)r->bytes;
    }
    for (int side = 0; side < 2; ++side) pjsua_conf_remove_port(r->slot[side]);
    baton_graveyard.push_back(r);
    return bytes;
}

/* Let go of what ended recordings held; `all` only once the bridge is gone. */
void baton_record_bury(bool all) { baton_bury(all); }
%}
