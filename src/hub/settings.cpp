#include "hub/settings.hpp"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include "hub/names.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/ascii_case.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/strip.hpp"

// huggingface_hub's constants.py, rule by rule.

namespace rometrace {

namespace fs = std::filesystem;

namespace {

std::optional<std::string> home_of(const std::string& user) {
  if (user.empty()) {
    if (auto home = environment("HOME")) return home;
  }
  const passwd* entry = user.empty() ? ::getpwuid(::getuid()) : ::getpwnam(user.c_str());
  return entry == nullptr ? std::nullopt : std::optional<std::string>(entry->pw_dir);
}

/// os.path.expanduser: "~" and "~user" at the front.
std::string expand_user(const std::string& path) {
  if (!path.starts_with('~')) return path;
  const std::size_t slash = std::min(path.find('/'), path.size());
  std::optional<std::string> home = home_of(path.substr(1, slash - 1));
  if (!home) return path;
  while (home->ends_with('/')) home->pop_back();
  std::string expanded = *home + path.substr(slash);
  return expanded.empty() ? "/" : expanded;
}

/// os.path.expandvars: $NAME and ${NAME}, once; what is not set stays as it is written.
std::string expand_variables(std::string_view path) {
  std::string expanded;
  for (std::size_t i = 0; i < path.size();) {
    std::size_t end = i + 1;
    std::string name;
    if (path[i] == '$' && end < path.size() && path[end] == '{') {
      const std::size_t brace = path.find('}', end);
      if (brace != std::string_view::npos) {
        name = path.substr(end + 1, brace - end - 1);
        end = brace + 1;
      }
    } else if (path[i] == '$') {
      while (end < path.size() && is_word(path[end])) ++end;
      name = path.substr(i + 1, end - i - 1);
    }
    const std::optional<std::string> value = name.empty() ? std::nullopt : environment(name);
    expanded += value ? *value : std::string(path.substr(i, end - i));
    i = end;
  }
  return expanded;
}

std::string expand(const std::string& path) {
  return expand_variables(expand_user(path));
}

/// $HF_HOME, where the cache and the token lie.
fs::path hub_home() {
  const fs::path caches = environment("XDG_CACHE_HOME").value_or((fs::path(expand_user("~")) / ".cache").native());
  return expand(environment("HF_HOME").value_or((caches / "huggingface").native()));
}

std::string value_of(const std::string& name) {
  return environment(name).value_or("");
}

/// Of a variable that counts only if something is left; Python's str.strip.
std::string stripped_value(const std::string& name) {
  return std::string(strip(value_of(name)));
}

bool is_true(const std::string& value) {
  const std::string lower = ascii_lower(value);
  return lower == "1" || lower == "on" || lower == "yes" || lower == "true";
}

/// huggingface_hub's utils/_auth.py, without what belongs to notebooks and CI services.
std::optional<std::string> find_token() {
  if (is_true(value_of("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return std::nullopt;
  std::string where = "HF_TOKEN";
  std::string token = stripped_value("HF_TOKEN");
  if (token.empty()) {
    where = "HUGGING_FACE_HUB_TOKEN";
    token = stripped_value("HUGGING_FACE_HUB_TOKEN");
  }
  if (token.empty()) {
    const auto path = environment("HF_TOKEN_PATH");
    const fs::path file = path ? fs::path(expand(*path)) : hub_home() / "token";
    std::error_code ignored;
    if (!fs::is_regular_file(file, ignored) || fs::file_size(file, ignored) == 0) return std::nullopt;
    where = label_of(file);
    token = strip(read_text_file(file));
  }
  if (token.empty()) return std::nullopt;
  const auto fits = [](char c) { return c > ' ' && c < 0x7F; };  // anything else could end the header's line
  if (!std::all_of(token.begin(), token.end(), fits)) {
    throw Error(where + ": holds characters that no token has; expected a token such as hf_..., and nothing else");
  }
  return token;
}

double seconds_of(const std::string& name, double otherwise) {
  const std::string text = stripped_value(name);
  if (text.empty()) return otherwise;
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  constexpr double kMost = 86400;
  if (error != std::errc() || stop != end || !(value > 0 && value <= kMost)) {
    throw Error(name + " is " + in_quotes(text) + "; expected seconds, above 0 and at most 86400");
  }
  return value;
}

}  // namespace

std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

fs::path cache_folder() {
  if (const auto hub = environment("HF_HUB_CACHE")) return expand(*hub);
  if (const auto hub = environment("HUGGINGFACE_HUB_CACHE")) return expand(*hub);
  return expand((hub_home() / "hub").native());
}

std::optional<std::string> offline_setting() {
  const bool own = !value_of("HF_HUB_OFFLINE").empty();
  const std::string name = own ? "HF_HUB_OFFLINE" : "TRANSFORMERS_OFFLINE";
  return is_true(value_of(name)) ? std::optional(name + "=" + one_line(value_of(name))) : std::nullopt;
}

HubSettings read_hub_settings() {
  HubSettings settings;
  if (const std::string endpoint = stripped_value("HF_ENDPOINT"); !endpoint.empty()) settings.endpoint = endpoint;
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  settings.token = find_token();
  settings.retry_seconds = seconds_of("ROMETRACE_RETRY_SECONDS", settings.retry_seconds);
  settings.stall_seconds = seconds_of("HF_HUB_DOWNLOAD_TIMEOUT", settings.stall_seconds);
  return settings;
}

}  // namespace rometrace
