#include "hub/url.hpp"

#include <curl/curl.h>

#include <memory>
#include <new>
#include <optional>

#include "rometrace/error.hpp"
#include "rometrace/text/ascii_case.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

/// libcurl's own reading of URLs, so that what is compared here is what is connected to.
class ParsedUrl {
 public:
  ParsedUrl() : url_(curl_url(), &curl_url_cleanup) {
    if (url_ == nullptr) throw std::bad_alloc();
  }

  /// A relative one is taken from the one set before. False if it cannot be read.
  bool set(const std::string& text) {
    return text.find('\0') == std::string::npos &&
           curl_url_set(url_.get(), CURLUPART_URL, text.c_str(), 0) == CURLUE_OK;
  }
  void drop(CURLUPart part) { curl_url_set(url_.get(), part, nullptr, 0); }

  std::optional<std::string> get(CURLUPart part) const {
    char* text = nullptr;
    const unsigned flags = part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0;
    if (curl_url_get(url_.get(), part, &text, flags) != CURLUE_OK) return std::nullopt;
    const std::unique_ptr<char, decltype(&curl_free)> owner(text, &curl_free);
    return std::string(text);
  }

 private:
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url_;
};

}  // namespace

Origin origin_of(const std::string& url, std::string_view what) {
  ParsedUrl parsed;
  if (url.find("://") != std::string::npos && parsed.set(url)) {
    Origin origin{ascii_lower(parsed.get(CURLUPART_SCHEME).value_or("")),
                  ascii_lower(parsed.get(CURLUPART_HOST).value_or("")), parsed.get(CURLUPART_PORT).value_or("")};
    const bool is_web = origin.scheme == "http" || origin.scheme == "https";
    if (is_web && !origin.host.empty() && !origin.port.empty()) return origin;
  }
  throw Error(std::string(what) + " is " + in_quotes(shown_url(url)) +
              "; expected a URL of http or https, such as https://huggingface.co");
}

std::string follow_location(const std::string& url, const std::string& location) {
  const Origin from = origin_of(url, "the address");
  ParsedUrl parsed;
  const bool readable = parsed.set(url) && parsed.set(location);
  const std::string target = readable ? parsed.get(CURLUPART_URL).value_or("") : "";
  const std::string where = shown_url(url);
  if (target.empty()) throw Error(where + ": redirects to " + in_quotes(shown_url(location)) + ", which is no URL");
  const Origin to = origin_of(target, where + ": the place that it redirects to");
  if (from.scheme == "https" && to.scheme != "https") {
    throw Error(where + ": redirects to " + shown_url(target) + ", from https to http; nothing is fetched that way");
  }
  return target;
}

std::string shown_url(const std::string& url) {
  ParsedUrl parsed;
  if (parsed.set(url)) {
    for (const CURLUPart part : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY, CURLUPART_FRAGMENT}) {
      parsed.drop(part);
    }
    if (const auto shown = parsed.get(CURLUPART_URL)) return one_line(*shown, 300);
  }
  const std::size_t secrets = url.find_first_of("?#@");
  return secrets == std::string::npos ? one_line(url) : "(not shown)";
}

std::string percent_encoded(std::string_view text, Slash slash) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                          c == '_' || c == '.' || c == '~' || (c == '/' && slash == Slash::kKept);
    if (is_plain) {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += '%';
      encoded += kHex[byte >> 4U];
      encoded += kHex[byte & 15U];
    }
  }
  return encoded;
}

std::string info_url(const std::string& endpoint, const std::string& name, const std::string& revision) {
  return endpoint + "/api/models/" + percent_encoded(name, Slash::kKept) + "/revision/" +
         percent_encoded(revision, Slash::kEncoded);
}

std::string file_url(const std::string& endpoint, const std::string& name, const std::string& commit,
                     const std::string& file) {
  return endpoint + "/" + percent_encoded(name, Slash::kKept) + "/resolve/" + percent_encoded(commit, Slash::kEncoded) +
         "/" + percent_encoded(file, Slash::kKept);
}

}  // namespace rometrace
