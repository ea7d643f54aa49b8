#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/error.hpp"

namespace rometrace {

/// A failure that may go away by itself: worth another try.
class TransientFailure : public Error {
 public:
  /// Whether the server was spoken to at all. If not, the network or a name may be wrong, and patience helps less.
  enum class Contact { kNone, kMade };

  TransientFailure(const std::string& message, Contact contact, std::optional<double> retry_after = std::nullopt)
      : Error(message), contact_(contact), retry_after_(retry_after) {}

  Contact contact() const { return contact_; }
  std::optional<double> retry_after() const { return retry_after_; }  ///< seconds that the server asked for

 private:
  Contact contact_;
  std::optional<double> retry_after_;
};

struct HttpRequest {
  enum class Method { kGet, kHead };

  Method method = Method::kGet;
  std::string url;
  std::vector<std::string> headers;       ///< "Name: value"
  std::optional<double> longest_seconds;  ///< what the whole answer may take; none: as long as it keeps coming
};

/// Status and headers of an answer.
struct HttpHead {
  long status = 0;
  std::map<std::string, std::string, std::less<>> headers;  ///< names in lower case; of a repeated one the last

  /// Nothing if it is not there or empty.
  std::optional<std::string> header(std::string_view name) const;
};

/// One connection at a time to servers of HTTP and HTTPS, with proxies and certificates as curl has them. Follows no
/// redirects and sends no credentials but what the requests hold. Not to be used by two threads at once.
class HttpClient {
 public:
  /// `stall_seconds`: how long a server may be silent. A body that comes more slowly than kLeastSpeed, averaged over
  /// that time, counts as silence: a byte now and then would hold the program for ever.
  explicit HttpClient(double stall_seconds);

  static constexpr double kLeastSpeed = 1000;  ///< bytes a second

  /// Is given the body as it comes, in pieces, with the head before it, and says whether it wants the rest; what it
  /// throws ends the transfer and is thrown by send(). Not called for a body of no bytes.
  enum class Rest { kWanted, kNotWanted };
  using Sink = std::function<Rest(const HttpHead&, std::span<const std::byte>)>;

  /// Returns once the whole answer is there, or as much as the sink wants, whatever its status. Throws TransientFailure
  /// if the connection cannot be made, breaks, stalls, takes longer than the request allows, or ends before the length
  /// that was announced; Error if it cannot be made safe (certificates) or the request cannot be made; Interrupted.
  HttpHead send(const HttpRequest& request, const Sink& sink, const std::stop_token& stop);

 private:
  double stall_seconds_;
  std::unique_ptr<void, void (*)(void*)> curl_;
};

}  // namespace rometrace
