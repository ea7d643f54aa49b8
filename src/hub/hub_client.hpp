#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "hub/http.hpp"
#include "hub/retries.hpp"
#include "hub/settings.hpp"
#include "hub/url.hpp"

namespace rometrace {

/// What a hub tells of a revision of a model.
struct RevisionInfo {
  std::string commit;
  std::vector<std::string> files;  ///< names, with "/" where they lie in folders
};

/// What a hub tells of a file before it sends it.
struct RemoteFile {
  std::string name;
  std::string url;
  std::string etag;                   ///< as the server wrote it
  std::string blob;                   ///< the etag as a cache names the content: without W/ and quotes
  std::optional<std::uint64_t> size;  ///< bytes
};

/// huggingface_hub's normalisation of an etag. Throws Error, with `where` in front, if no file can be called so.
std::string blob_name(const std::string& etag, const std::string& where);

/// The server refused the range of bytes that was asked for.
class RangeRefused : public TransientFailure {
 public:
  using TransientFailure::TransientFailure;
};

/// Asks one hub for one model's files. The token goes to the endpoint's own scheme, host and port and nowhere else.
class HubClient {
 public:
  /// Throws Error if the endpoint is no URL. `note` is told of new tries.
  HubClient(const HubSettings& settings, std::string model, Note note, std::stop_token stop);

  /// What a revision (branch, tag, commit) is. Tries again as Retries does. Throws Error: no such model or revision,
  /// access refused, an answer that is not a hub's; Interrupted.
  RevisionInfo look_up(const std::string& revision);

  /// Etag and size of a file of a commit. Follows redirects on the endpoint; one that leads elsewhere carries what is
  /// asked for. Tries again as Retries does. Throws Error as look_up(), or if the answer has no usable etag.
  RemoteFile look_up_file(const std::string& commit, const std::string& file);

  /// Sends for a file's bytes from `offset` on: one try, through redirects to any server but from https to http. The
  /// sink sees successful answers only (status 200: the whole file, or 206). Throws TransientFailure, RangeRefused,
  /// Error, Interrupted.
  void get(const RemoteFile& file, std::uint64_t offset, const HttpClient::Sink& sink);

  /// Bytes that a try has to bring to count as progress: what kLeastSpeed is in the silence that is allowed.
  double least_progress() const { return HttpClient::kLeastSpeed * settings_.stall_seconds; }

  Retries new_retries() const { return {settings_.retry_seconds, note_, stop_}; }
  const std::string& model() const { return model_; }

 private:
  enum class Redirects { kOnEndpoint, kAnywhere };

  HttpHead send(HttpRequest request, const HttpClient::Sink& sink, Redirects redirects);
  void check_status(const HttpHead& head, const std::string& url) const;
  [[noreturn]] void refuse(const HttpHead& head, const std::string& url) const;

  HubSettings settings_;
  Origin endpoint_;
  std::string model_;
  Note note_;
  std::stop_token stop_;
  HttpClient http_;
};

}  // namespace rometrace
