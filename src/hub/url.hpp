#pragma once

#include <string>
#include <string_view>

namespace rometrace {

/// A URL's scheme, host and port, each as RFC 3986 compares them. Two with equal origins are the same server.
struct Origin {
  std::string scheme, host, port;  ///< lower case; the port is never empty

  bool operator==(const Origin&) const = default;
};

/// Throws Error unless `url` is one of http or https with a host; `what` opens the message ("HF_ENDPOINT").
Origin origin_of(const std::string& url, std::string_view what);

/// The URL that the `location` of a redirect means, relative or not, seen from `url`. Throws Error for what is no URL
/// of http or https, or leads from https to http.
std::string follow_location(const std::string& url, const std::string& location);

/// `url` as messages may show it: without user, password, query and fragment, which can be secrets.
std::string shown_url(const std::string& url);

/// `text` with all but letters, digits, "-", "_", "." and "~" as %XX; a "/" stays as it is where that is asked for.
enum class Slash { kEncoded, kKept };
std::string percent_encoded(std::string_view text, Slash slash);

/// ENDPOINT/api/models/NAME/revision/REVISION.
std::string info_url(const std::string& endpoint, const std::string& name, const std::string& revision);

/// ENDPOINT/NAME/resolve/COMMIT/FILE.
std::string file_url(const std::string& endpoint, const std::string& name, const std::string& commit,
                     const std::string& file);

}  // namespace rometrace
