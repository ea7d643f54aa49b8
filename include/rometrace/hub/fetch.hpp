#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

namespace rometrace {

/// How far the fetching of a model is. Bytes of all its files that are not in the cache.
struct FetchProgress {
  std::string file;         ///< the one on its way
  std::uint64_t done = 0;   ///< of `total`
  std::uint64_t kept = 0;   ///< of `done`: from an attempt before this one
  std::uint64_t total = 0;  ///< of files whose size the hub tells
};

struct FetchOptions {
  std::string revision = "main";                       ///< branch, tag or commit
  std::function<void(const FetchProgress&)> progress;  ///< called for each piece that arrives; may be empty
  std::function<void(const std::string&)> note;  ///< one line: new tries, waiting, what is used instead; may be empty
};

/// Brings a model ("ORG/NAME" or "NAME") from a hub into the local cache and returns its snapshot's folder, which
/// resolve_model() and huggingface_hub find from then on. What is there is not fetched again. Of a model that has two
/// names (see resolve_model()) it is kept under the one under which the cache has the most of it, else under the one
/// asked for; huggingface_hub, which knows no second names, finds it under that one. Where the hub cannot be reached,
/// the cache's snapshot is returned if it is complete; `note` is told. (One that refuses is an error.)
///
/// Fetched are config.json, the tokeniser's files, and the first of model.safetensors, model.safetensors.index.json
/// with its shards, pytorch_model.bin, pytorch_model.bin.index.json with its shards. Each file is received as
/// blobs/ETAG.incomplete.ID, a file of its own for each process, under huggingface_hub's lock; what is broken off stays
/// as blobs/ETAG.incomplete, with which a later call goes on. A connection that breaks or stalls, and the statuses 408,
/// 429 and 5xx, are tried again after pauses that grow (at least as long as Retry-After says), until 6 tries in a row
/// brought nothing new worth the name (1000 bytes for each second of HF_HUB_DOWNLOAD_TIMEOUT). At the end size and hash
/// (SHA-256, or git's) have to be those announced; if not, the file is fetched anew, once. The snapshot's links,
/// config.json's last, and then the reference are made when all files are there.
///
/// The environment: HF_ENDPOINT; the cache as for resolve_model(); HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE (no
/// connection is made); HF_TOKEN, HUGGING_FACE_HUB_TOKEN, else the file HF_TOKEN_PATH or HF_HOME/token, none of them
/// with HF_HUB_DISABLE_IMPLICIT_TOKEN (sent to the endpoint's own scheme, host and port only);
/// HF_HUB_DOWNLOAD_TIMEOUT (seconds of silence, or of less than 1000 bytes a second, that
/// end a connection, 30); ROMETRACE_RETRY_SECONDS (the first pause,
/// 1); http_proxy, https_proxy, all_proxy, no_proxy, CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR as for curl.
///
/// Throws Error: not a name or a revision; offline, and not complete in the cache; no such model or revision; no
/// access; no config.json, weights or tokeniser that can be used (before anything is fetched); the network fails, and
/// it is not complete in the cache; content wrong twice; no room, or the cache cannot be written to. Interrupted, if
/// `stop` is requested.
std::filesystem::path fetch_model(std::string_view model, const FetchOptions& options, const std::stop_token& stop);

}  // namespace rometrace
