/* Baton's PJSIP configuration. Every line says why it is there; scripts/build-pjsua2 hashes this file into the wheel's cache key.
 * The ceilings are what the build can carry; what one process may use is set at run time and checked by Baton's start-up probe. */

/* Ring-all to five at 50 transfers/s with every callee silent holds 50 x 5 x 32 s = 8,000 slots (timer B, RFC 3261 section 17.1.1.2). */
#define PJSUA_MAX_CALLS                 8000
/* One account per distinct trunk policy (transport, SRTP, credentials, CA file), not per buyer. */
#define PJSUA_MAX_ACC                   1024
/* One port per call that has media, two per recording, and the players. */
#define PJSUA_MAX_CONF_PORTS            24000
/* Hold music, prompts and whispers: a native player for each call that hears one. */
#define PJSUA_MAX_PLAYERS               4096
/* Recordings are our own ports (baton_media.i), two a call; pjsua's recorders are not used. */
#define PJSUA_MAX_RECORDERS             32
/* G.722 and Opus legs meet G.711 legs on the bridge: system libsamplerate converts. */
#define PJMEDIA_RESAMPLE_IMP            PJMEDIA_RESAMPLE_LIBSAMPLERATE
/* RTP and RTCP socket per call, listeners, TCP and TLS connections. */
#define PJ_IOQUEUE_MAX_HANDLES          20000
/* More ready descriptors per poll: fewer turns of the loop in a burst. */
#define PJ_IOQUEUE_MAX_EVENTS_IN_SINGLE_POLL 64
/* Every poll walks the list of keys that wait to be free again; at 600 closed sockets a second, 500 ms of them is a long walk. */
#define PJ_IOQUEUE_KEY_FREE_DELAY       100
/* INVITE, CANCEL, BYE of every call, terminated ones linger 32 s. */
#define PJSIP_MAX_TSX_COUNT             65535
#define PJSIP_MAX_DIALOG_COUNT          16383
/* A burst of 200 OKs must not overflow the socket before the loop turns. */
#define PJSIP_UDP_SO_RCVBUF_SIZE        8388608
#define PJSIP_UDP_SO_SNDBUF_SIZE        8388608
/* Above the largest datagram (65,527 bytes: 65,535 less UDP's header), so that none is cut: an INVITE may carry a lead of 64 fields.
 * Each connection over TCP holds one of these: 73 kB each, 24 kB with 16,384 (500 connections, resident). Messages that are sent
 * take what they are long (messages.patch). */
#define PJSIP_MAX_PKT_LEN               65536
/* RFC 3261 section 18.1.1 asks for TCP above 1,300 bytes; a trunk configured as UDP stays on UDP, as its carrier expects. */
#define PJSIP_DONT_SWITCH_TO_TCP        1
/* Formatting of log lines costs more than the calls themselves; 3 keeps errors, warnings and information. */
#define PJ_LOG_MAX_LEVEL                3
/* No video, no text, no sound device: a server. */
#define PJMEDIA_HAS_VIDEO               0
#define PJMEDIA_HAS_LEGACY_SOUND_API    0
/* Lines of SDP and of headers beyond these are refused, not truncated. */
#define PJMEDIA_MAX_SDP_FMT             32
/* TLS only 1.2 and 1.3 (set again at run time per transport). */
#define PJSIP_TLS_KEEP_ALIVE_INTERVAL   90
#define PJSIP_TCP_KEEP_ALIVE_INTERVAL   90
