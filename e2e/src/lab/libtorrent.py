"""A libtorrent peer for `cargo xtask lab --against libtorrent`.

make TORRENT DATA SIZE          makes a file of random bytes, and its torrent
seed TORRENT DIRECTORY LISTEN   has the file, says `ready`, and serves
peer TORRENT DIRECTORY LISTEN PEER...
                                says `ready`, waits for a line, fetches, says how that went, and serves

A peer is told of all others, as a tracker would tell it, and speaks TCP to them in the clear. What isn't a default is what measured best
on the lab's network: docs/performance.md.
"""

import json
import os
import random
import select
import sys

import libtorrent as lt

PIECE = 64 << 10

SETTINGS = {
    # TCP only, nothing that looks for peers, no ciphers: the network is a data centre's.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "in_enc_policy": int(lt.enc_policy.disabled),
    "out_enc_policy": int(lt.enc_policy.disabled),
    "mixed_mode_algorithm": int(lt.bandwidth_mixed_algo_t.prefer_tcp),
    "allow_multiple_connections_per_ip": True,
    "rate_limit_ip_overhead": False,
    # All connections at once: a burst is over before a torrent client would have warmed up.
    "connections_limit": 1000,
    "connection_speed": 1000,
    "torrent_connect_boost": 255,
    "min_reconnect_time": 1,
    "listen_queue_size": 1000,
    # Who gets a place is decided each second, not each fifteen.
    "choking_algorithm": int(lt.choking_algorithm_t.fixed_slots_choker),
    "seed_choking_algorithm": int(lt.seed_choking_algorithm_t.round_robin),
    "unchoke_slots_limit": 4,
    "unchoke_interval": 1,
    "optimistic_unchoke_interval": 1,
    "tick_interval": 100,
    # A queue of half a second and no more: what waits in it can't be asked for elsewhere.
    "request_queue_time": 1,
    "max_out_request_queue": 64,
    "whole_pieces_threshold": 2,
    "send_buffer_watermark": 256 << 10,
    "send_buffer_low_watermark": 64 << 10,
    "suggest_mode": 0,
    "aio_threads": 1,
    "hashing_threads": 1,
    "alert_mask": int(lt.alert.category_t.status_notification) | int(lt.alert.category_t.error_notification),
}


def make(torrent, data, size):
    # The same bytes in each run, and none that compress.
    with open(data, "wb") as file:
        source = random.Random(1)
        left = size
        while left:
            piece = min(left, 1 << 20)
            file.write(source.randbytes(piece))
            left -= piece
    files = lt.file_storage()
    lt.add_files(files, data)
    made = lt.create_torrent(files, PIECE, lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(data))
    with open(torrent, "wb") as file:
        file.write(lt.bencode(made.generate()))


def session(listen):
    return lt.session({**SETTINGS, "listen_interfaces": listen})


def add(run, torrent, directory, flags, peers):
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(torrent)
    wanted.save_path = directory
    wanted.flags = flags
    wanted.max_connections = 1000
    wanted.peers = [(address, int(port)) for address, port in (peer.rsplit(":", 1) for peer in peers)]
    return run.add_torrent(wanted)


def fetch(run, torrent, directory, peers):
    handle = add(run, torrent, directory, lt.torrent_flags.update_subscribe, peers)
    error = None
    while error is None:
        run.wait_for_alert(1000)
        for alert in run.pop_alerts():
            if isinstance(alert, lt.torrent_error_alert):
                error = alert.message()
        if handle.status().is_seeding:
            break
    return error


def main():
    command, torrent, *rest = sys.argv[1:]
    if command == "make":
        make(torrent, rest[0], int(rest[1]))
        return
    directory, listen, *peers = rest
    run = session(listen)
    if command == "seed":
        kept = add(run, torrent, directory, lt.torrent_flags.seed_mode, [])
        print("ready", flush=True)
    else:
        print("ready", flush=True)
        sys.stdin.readline()
        error = fetch(run, torrent, directory, peers)
        print(json.dumps({"failures": 0, "wrong_bytes": 0, "error": error}), flush=True)
    # Until the lab ends this process, or has itself ended.
    select.select([sys.stdin], [], [])


main()
