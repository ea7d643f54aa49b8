#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace rometrace {

/// What the environment says about the hub and its cache, by huggingface_hub's rules.

/// Nothing if unset; a variable that is set to nothing counts as set, as it does in os.getenv.
std::optional<std::string> environment(const std::string& name);

/// Where models are kept: HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else HF_HOME/hub, else the user's cache.
std::filesystem::path cache_folder();

/// "HF_HUB_OFFLINE=1" if that (or, where it is empty, TRANSFORMERS_OFFLINE) forbids connections.
std::optional<std::string> offline_setting();

struct HubSettings {
  std::string endpoint = "https://huggingface.co";  ///< HF_ENDPOINT; without "/" at its end
  std::optional<std::string> token;                 ///< HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or the file of a login
  double retry_seconds = 1;                         ///< ROMETRACE_RETRY_SECONDS: before the first new try
  double stall_seconds = 30;                        ///< HF_HUB_DOWNLOAD_TIMEOUT: silence that ends a connection
};

/// Throws Error: a token with characters that no header can hold, a token's file that cannot be read, seconds that are
/// not a positive number.
HubSettings read_hub_settings();

}  // namespace rometrace
