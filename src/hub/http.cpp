#include "hub/http.hpp"

#include <curl/curl.h>

#include <array>
#include <exception>
#include <new>

#include "hub/settings.hpp"
#include "hub/url.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/ascii_case.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

constexpr long kConnectSeconds = 30;

/// What the callbacks of one transfer share.
struct Transfer {
  const HttpClient::Sink& sink;
  const std::stop_token& stop;
  double stall_seconds;
  std::optional<double> longest_seconds;

  HttpHead head;
  std::exception_ptr failure;  // of the sink: exceptions must not pass through libcurl
  bool is_enough = false;      // for the sink
  Stopwatch whole;
  Stopwatch pace;  // since as much had come as kLeastSpeed asks for
  curl_off_t received_before = 0;
  bool stalled = false, too_long = false;
};

std::size_t take_header(char* data, std::size_t, std::size_t size, void* context) noexcept {
  auto& transfer = *static_cast<Transfer*>(context);
  try {
    const std::string_view line(data, size);
    if (line.starts_with("HTTP/")) transfer.head.headers.clear();  // another answer: "100 Continue" came before
    if (const std::size_t colon = line.find(':'); colon != line.npos) {
      transfer.head.headers[ascii_lower(strip(line.substr(0, colon)))] = strip(line.substr(colon + 1));
    }
    return size;
  } catch (...) {
    transfer.failure = std::current_exception();
    return 0;
  }
}

struct Body {
  Transfer& transfer;
  CURL* curl;
};

std::size_t take_body(char* data, std::size_t, std::size_t size, void* context) noexcept {
  auto& [transfer, curl] = *static_cast<Body*>(context);
  try {
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &transfer.head.status);
    const auto rest = transfer.sink(transfer.head, std::as_bytes(std::span(data, size)));
    transfer.is_enough = rest == HttpClient::Rest::kNotWanted;
  } catch (...) {
    transfer.failure = std::current_exception();
  }
  const bool goes_on = !transfer.is_enough && !transfer.failure;
  return goes_on ? size : size == 0 ? 1 : 0;  // any other number than `size` ends the transfer
}

int watch_progress(void* context, curl_off_t, curl_off_t received, curl_off_t, curl_off_t) noexcept {
  auto& transfer = *static_cast<Transfer*>(context);
  const auto news = static_cast<double>(received - transfer.received_before);
  if (news > 0 && news >= HttpClient::kLeastSpeed * transfer.stall_seconds) {
    transfer.received_before = received;
    transfer.pace = Stopwatch();
  }
  transfer.stalled = transfer.pace.seconds() > transfer.stall_seconds;
  transfer.too_long = transfer.longest_seconds && transfer.whole.seconds() > *transfer.longest_seconds;
  return transfer.stalled || transfer.too_long || transfer.stop.stop_requested() ? 1 : 0;
}

/// Whether nobody was reached: the network, a proxy or a name may be wrong.
bool is_without_contact(CURLcode code) {
  return code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT ||
         code == CURLE_SSL_CONNECT_ERROR || code == CURLE_OPERATION_TIMEDOUT;
}

bool is_transient(CURLcode code) {
  switch (code) {
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return is_without_contact(code);
  }
}

bool is_about_certificates(CURLcode code) {
  return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_ISSUER_ERROR;
}

using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

Headers make_headers(const std::vector<std::string>& lines) {
  Headers list(nullptr, &curl_slist_free_all);
  for (const std::string& line : lines) {
    curl_slist* const longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    list.release();
    list.reset(longer);
  }
  return list;
}

/// Certificates as the curl program finds them; libcurl itself knows none of these variables.
struct Certificates {
  std::optional<std::string> file, folder;
};

Certificates find_certificates() {
  const auto given = [](const char* name) {
    const auto value = environment(name);
    return value && !value->empty() ? value : std::nullopt;
  };
  if (auto bundle = given("CURL_CA_BUNDLE")) return {bundle, std::nullopt};
  return {given("SSL_CERT_FILE"), given("SSL_CERT_DIR")};
}

template <typename Value>
void set(CURL* curl, CURLoption option, Value value) {
  const CURLcode code = curl_easy_setopt(curl, option, value);
  if (code == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
  if (code != CURLE_OK) throw Error(std::string("libcurl refuses an option: ") + curl_easy_strerror(code));
}

/// Takes from a handle, which stays connected, what points to one request's variables.
struct ResetAtEnd {
  CURL* curl;
  explicit ResetAtEnd(CURL* handle) : curl(handle) {}
  ResetAtEnd(const ResetAtEnd&) = delete;
  ResetAtEnd& operator=(const ResetAtEnd&) = delete;
  ~ResetAtEnd() { curl_easy_reset(curl); }
};

}  // namespace

std::optional<std::string> HttpHead::header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() || found->second.empty() ? std::nullopt : std::optional(found->second);
}

HttpClient::HttpClient(double stall_seconds) : stall_seconds_(stall_seconds), curl_(nullptr, &curl_easy_cleanup) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (ready == CURLE_OK) curl_.reset(curl_easy_init());
  if (curl_ == nullptr) throw Error("libcurl cannot be started");
}

HttpHead HttpClient::send(const HttpRequest& request, const Sink& sink, const std::stop_token& stop) {
  CURL* const curl = curl_.get();
  Transfer transfer{sink, stop, stall_seconds_, request.longest_seconds, {}, {}, {}, {}, {}};
  Body body{transfer, curl};
  const Headers headers = make_headers(request.headers);
  std::array<char, CURL_ERROR_SIZE> reason{};
  const ResetAtEnd reset{curl};

  set(curl, CURLOPT_URL, request.url.c_str());
  set(curl, CURLOPT_HTTPHEADER, headers.get());
  set(curl, CURLOPT_NOBODY, request.method == HttpRequest::Method::kHead ? 1L : 0L);
  set(curl, CURLOPT_USERAGENT, (std::string("rometrace/") + kVersion).c_str());
  set(curl, CURLOPT_FOLLOWLOCATION, 0L);
#if LIBCURL_VERSION_NUM >= 0x075500
  set(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  set(curl, CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
  const auto certificates = find_certificates();
  if (certificates.file) set(curl, CURLOPT_CAINFO, certificates.file->c_str());
  if (certificates.folder) set(curl, CURLOPT_CAPATH, certificates.folder->c_str());
  set(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(curl, CURLOPT_NOSIGNAL, 1L);
  set(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);  // refused where there is a buffer already, of that size
  set(curl, CURLOPT_ERRORBUFFER, reason.data());
  set(curl, CURLOPT_HEADERFUNCTION, &take_header);
  set(curl, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
  set(curl, CURLOPT_WRITEFUNCTION, &take_body);
  set(curl, CURLOPT_WRITEDATA, static_cast<void*>(&body));
  set(curl, CURLOPT_NOPROGRESS, 0L);
  set(curl, CURLOPT_XFERINFOFUNCTION, &watch_progress);
  set(curl, CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));

  const CURLcode code = curl_easy_perform(curl);
  if (transfer.failure) std::rethrow_exception(transfer.failure);
  if (stop.stop_requested()) throw Interrupted();
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &transfer.head.status);
  if (code == CURLE_OK || transfer.is_enough) return transfer.head;

  const std::string where = shown_url(request.url);
  const std::string what = one_line(reason.front() != 0 ? reason.data() : curl_easy_strerror(code), 200);
  using Contact = TransientFailure::Contact;
  if (transfer.stalled || transfer.too_long) {
    const bool spoke = transfer.head.status != 0;
    const char* silence = spoke ? ": the server fell silent" : ": the server does not answer";
    throw TransientFailure(where + (transfer.stalled ? silence : ": the answer takes too long"),
                           spoke ? Contact::kMade : Contact::kNone);
  }
  if (is_transient(code)) {
    const bool spoke = transfer.head.status != 0 || !is_without_contact(code);
    throw TransientFailure(where + ": " + what, spoke ? Contact::kMade : Contact::kNone);
  }
  if (is_about_certificates(code)) {
    throw Error(
        where + ": its certificate cannot be verified (" + what +
        "); check the address and the clock, or name the file with your network's certificates in CURL_CA_BUNDLE");
  }
  throw Error(where + ": " + what);
}

}  // namespace rometrace
