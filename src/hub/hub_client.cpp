#include "hub/hub_client.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "hub/content_hash.hpp"
#include "hub/names.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

constexpr std::size_t kMostInfoBytes = std::size_t{64} << 20U;
constexpr std::size_t kMostOtherBytes = std::size_t{64} << 10U;  // of errors and redirects, which nobody reads
constexpr int kMostRedirects = 10;
constexpr double kMostStalls = 10;  // how many silences of the allowed length an answer without a file may take

bool is_success(long status) {
  return status >= 200 && status < 300;
}

bool is_redirect(const HttpHead& head) {
  const bool redirects =
      head.status == 301 || head.status == 302 || head.status == 303 || head.status == 307 || head.status == 308;
  return redirects && head.header("location");
}

std::optional<std::uint64_t> whole_number(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  std::uint64_t number = 0;
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, number);
  return error == std::errc() && stop == end ? std::optional(number) : std::nullopt;
}

/// Seconds, or a date of HTTP.
std::optional<double> retry_after(const HttpHead& head) {
  const auto text = head.header("retry-after");
  if (const auto seconds = whole_number(text)) return static_cast<double>(*seconds);
  if (!text) return std::nullopt;
  const std::time_t then = curl_getdate(text->c_str(), nullptr);
  return then < 0 ? std::nullopt : std::optional(std::max(0.0, std::difftime(then, std::time(nullptr))));
}

RevisionInfo read_info(const std::string& body, const std::string& where) {
  const json info = parse_json(body, where);
  const auto text_of = [](const json& value) { return value.is_string() ? value.get<std::string>() : ""; };
  RevisionInfo revision;
  if (info.is_object() && info.contains("sha")) revision.commit = text_of(info["sha"]);
  if (!is_plain_name(revision.commit) || !info.contains("siblings") || !info["siblings"].is_array()) {
    throw Error(where + ": does not answer as a hub does (no \"sha\" or no \"siblings\"); check HF_ENDPOINT");
  }
  for (const json& sibling : info["siblings"]) {
    if (sibling.is_object() && sibling.contains("rfilename")) revision.files.push_back(text_of(sibling["rfilename"]));
  }
  return revision;
}

}  // namespace

std::string blob_name(const std::string& etag, const std::string& where) {
  const std::size_t begin = std::min(etag.find_first_not_of("W/"), etag.size());
  std::string name = etag.substr(begin);
  const std::size_t first = std::min(name.find_first_not_of('"'), name.size());
  name.erase(0, first);
  name.erase(name.find_last_not_of('"') + 1);
  constexpr std::size_t kLongest = 200;
  const bool printable = std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (!is_plain_name(name) || name.starts_with('.') || name.size() > kLongest || !printable) {
    throw Error(where + ": its etag is " + in_quotes(etag) + "; expected a hash, such as hubs send");
  }
  return name;
}

HubClient::HubClient(const HubSettings& settings, std::string model, Note note, std::stop_token stop)
    : settings_(settings),
      endpoint_(origin_of(settings.endpoint, "HF_ENDPOINT")),
      model_(std::move(model)),
      note_(std::move(note)),
      stop_(std::move(stop)),
      http_(settings.stall_seconds) {}

HttpHead HubClient::send(HttpRequest request, const HttpClient::Sink& sink, Redirects redirects) {
  using Rest = HttpClient::Rest;
  std::size_t other_bytes = 0;
  const auto successes = [&](const HttpHead& head, std::span<const std::byte> bytes) {
    if (is_success(head.status)) return sink(head, bytes);
    other_bytes += bytes.size();  // read, as far as it is short, so that the connection can be used again
    return other_bytes <= kMostOtherBytes ? Rest::kWanted : Rest::kNotWanted;
  };
  const std::vector<std::string> open_headers = std::move(request.headers);
  for (int redirected = 0; redirected <= kMostRedirects; ++redirected) {
    other_bytes = 0;
    request.headers = open_headers;
    request.headers.emplace_back("Accept-Encoding: identity");  // sizes and ranges are those of the file itself
    if (settings_.token && origin_of(request.url, "the address") == endpoint_) {
      request.headers.push_back("Authorization: Bearer " + *settings_.token);
    }
    HttpHead head = http_.send(request, successes, stop_);
    if (!is_redirect(head)) {
      check_status(head, request.url);
      return head;
    }
    std::string target = follow_location(request.url, *head.header("location"));
    if (redirects == Redirects::kOnEndpoint && !(origin_of(target, "the address") == endpoint_)) return head;
    request.url = std::move(target);
  }
  throw Error(model_ + ": " + shown_url(request.url) + " redirects without end; check HF_ENDPOINT");
}

void HubClient::check_status(const HttpHead& head, const std::string& url) const {
  if (is_success(head.status)) return;
  const std::string what = shown_url(url) + ": the server answers with status " + std::to_string(head.status);
  if (head.status == 416) throw RangeRefused(what, TransientFailure::Contact::kMade);
  if (head.status == 408 || head.status == 429 || head.status >= 500) {
    throw TransientFailure(what, TransientFailure::Contact::kMade, retry_after(head));
  }
  refuse(head, url);
}

void HubClient::refuse(const HttpHead& head, const std::string& url) const {
  const std::string where = model_ + ": ";
  const std::string endpoint = shown_url(settings_.endpoint);
  const std::string status = " (status " + std::to_string(head.status) + ")";
  const std::string code = head.header("x-error-code").value_or("");
  const bool from_endpoint = origin_of(url, "the address") == endpoint_;
  const std::string terms = "accept its terms, if it has any, at " + endpoint + "/" + model_ + " and set HF_TOKEN";
  if (!from_endpoint) {
    throw Error(where + shown_url(url) + ", to which " + endpoint + " redirects, refuses" + status +
                "; run it again later");
  }
  if (code == "RevisionNotFound") {
    throw Error(where + endpoint + " has no such revision" + status + "; check --revision");
  }
  if (head.status == 401 || head.status == 403) {
    if (code != "GatedRepo" && head.status == 401 && !settings_.token) {
      throw Error(where + endpoint + " has no such model, or not for everyone" + status + "; check the name, or " +
                  terms);
    }
    throw Error(where + endpoint + (settings_.token ? " refuses access with this token" : " refuses access") + status +
                "; " + terms + (settings_.token ? " to a token that may read it" : ""));
  }
  if (head.status == 404) throw Error(where + endpoint + " has no such model or file" + status + "; check the name");
  throw Error(where + shown_url(url) + ": refused" + status + "; check the name and HF_ENDPOINT");
}

RevisionInfo HubClient::look_up(const std::string& revision) {
  HttpRequest request;
  request.url = info_url(settings_.endpoint, model_, revision);
  request.longest_seconds = kMostStalls * settings_.stall_seconds;
  const std::string where = shown_url(request.url);
  Retries retries = new_retries();
  return retry(retries, [&] {
    std::string body;
    const HttpHead head = send(
        request,
        [&](const HttpHead&, std::span<const std::byte> bytes) {
          if (body.size() + bytes.size() > kMostInfoBytes) throw Error(where + ": the answer is too long");
          body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
          return HttpClient::Rest::kWanted;
        },
        Redirects::kOnEndpoint);
    if (is_redirect(head)) {
      throw Error(where + ": redirects to " + shown_url(follow_location(request.url, *head.header("location"))) +
                  ", another server; set HF_ENDPOINT to it if it is the right one");
    }
    return read_info(body, where);
  });
}

RemoteFile HubClient::look_up_file(const std::string& commit, const std::string& file) {
  RemoteFile remote;
  remote.name = file;
  remote.url = file_url(settings_.endpoint, model_, commit, file);
  const std::string where = shown_url(remote.url);
  HttpRequest request;
  request.method = HttpRequest::Method::kHead;
  request.url = remote.url;
  request.longest_seconds = kMostStalls * settings_.stall_seconds;
  Retries retries = new_retries();
  const HttpHead head = retry(retries, [&] {
    return send(
        request, [](const HttpHead&, std::span<const std::byte>) { return HttpClient::Rest::kNotWanted; },
        Redirects::kOnEndpoint);
  });
  if (const auto actual = head.header("x-repo-commit"); actual && *actual != commit) {
    throw Error(where + ": is of commit " + in_quotes(*actual) + "; expected " + in_quotes(commit));
  }
  const auto linked = head.header("x-linked-etag");
  const auto etag = linked ? linked : head.header("etag");
  if (!etag) throw Error(where + ": the answer has no etag, as a hub's has; check HF_ENDPOINT and the proxy");
  remote.etag = *etag;
  remote.blob = blob_name(remote.etag, where);
  remote.size = whole_number(head.header("x-linked-size"));
  if (!remote.size && !is_redirect(head)) remote.size = whole_number(head.header("content-length"));
  return remote;
}

void HubClient::get(const RemoteFile& file, std::uint64_t offset, const HttpClient::Sink& sink) {
  HttpRequest request;
  request.url = file.url;
  if (offset > 0) {
    request.headers.push_back("Range: bytes=" + std::to_string(offset) + "-");
    // Where the content cannot be checked at the end, only the server can say whether the file is still the same.
    if (hash_kind(file.blob) == HashKind::kNone) request.headers.push_back("If-Range: " + file.etag);
  }
  send(std::move(request), sink, Redirects::kAnywhere);
}

}  // namespace rometrace
