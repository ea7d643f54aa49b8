#include "rometrace/model/hub.hpp"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

// ---- Where the cache is: huggingface_hub's constants.py, rule by rule ----

/// Nothing if unset; a variable that is set to nothing counts as set, as it does in os.getenv.
std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

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

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
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

fs::path cache_folder() {
  if (const auto hub = environment("HF_HUB_CACHE")) return expand(*hub);
  if (const auto hub = environment("HUGGINGFACE_HUB_CACHE")) return expand(*hub);
  const fs::path caches = environment("XDG_CACHE_HOME").value_or((fs::path(expand_user("~")) / ".cache").native());
  const fs::path home = expand(environment("HF_HOME").value_or((caches / "huggingface").native()));
  return expand((home / "hub").native());
}

// ---- Names ----

/// huggingface_hub's rules for "NAME" or "ORG/NAME" (validate_repo_id).
bool is_repository_name(std::string_view name) {
  const auto is_outer = [](char c) { return is_word(c); };
  const auto is_inner = [](char c) { return is_word(c) || c == '-' || c == '.'; };
  if (std::count(name.begin(), name.end(), '/') > 1) return false;
  if (name.find("--") != name.npos || name.find("..") != name.npos || name.ends_with(".git")) return false;
  const std::size_t slash = name.find('/');
  for (const std::string_view part : {name.substr(0, slash), name.substr(slash == name.npos ? 0 : slash + 1)}) {
    if (part.empty() || part.size() > 96 || !is_outer(part.front()) || !is_outer(part.back())) return false;
    if (!std::all_of(part.begin(), part.end(), is_inner)) return false;
  }
  return true;
}

/// Components that stay where they are put: none of them empty, "." or "..".
bool is_inside(std::string_view relative_path) {
  for (;;) {
    const std::size_t slash = std::min(relative_path.find('/'), relative_path.size());
    const std::string_view part = relative_path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.find('\0') != part.npos) return false;
    if (slash == relative_path.size()) return true;
    relative_path.remove_prefix(slash + 1);
  }
}

/// The first models had names without an organisation; they moved, and caches have them under either name.
std::vector<std::string> names_in_cache(const std::string& name) {
  for (const auto& [short_name, organisation] : {std::pair{"gpt2", "openai-community"},
                                                 {"gpt2-medium", "openai-community"},
                                                 {"gpt2-large", "openai-community"},
                                                 {"gpt2-xl", "openai-community"},
                                                 {"distilgpt2", "distilbert"}}) {
    const std::string full_name = std::string(organisation) + "/" + short_name;
    if (name == short_name) return {name, full_name};
    if (name == full_name) return {name, short_name};
  }
  return {name};
}

std::string folder_in_cache(const std::string& name) {
  std::string folder = "models--" + name;
  if (const std::size_t slash = folder.find('/'); slash != std::string::npos) folder.replace(slash, 1, "--");
  return folder;
}

/// What a shell reads as `text`.
std::string in_shell(const std::string& text) {
  const auto is_plain = [](char c) { return is_word(c) || c == '-' || c == '.' || c == '/'; };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string how_to_get(const std::vector<std::string>& names, const std::string& revision) {
  // The name with the organisation is the one that lasts.
  const std::string& name = names.back().find('/') == std::string::npos ? names.front() : names.back();
  return "get it with `hf download " + name + " config.json model.safetensors vocab.json merges.txt" +
         (revision == "main" ? "" : " --revision " + in_shell(one_line(revision))) + "`, or give a model's folder";
}

// ---- Looking it up ----

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

/// The commit that a revision stands for in one repository's folder: what refs/REVISION says, else itself.
std::string read_commit(const fs::path& repository, const std::string& revision) {
  const fs::path reference = repository / "refs" / revision;
  if (!is_file(reference)) return revision;
  std::string commit = read_text_file(reference);
  commit.erase(commit.find_last_not_of(" \t\r\n") + 1);  // a file made by hand ends in a newline
  if (!is_inside(commit) || commit.find('/') != std::string::npos) {
    throw Error(label_of(reference) + ": is " + in_quotes(commit) + "; expected a commit");
  }
  return commit;
}

std::optional<fs::path> find_snapshot(const fs::path& repository, const std::string& revision) {
  const std::string commit = read_commit(repository, revision);
  if (commit.find('/') != std::string::npos) return std::nullopt;  // a revision such as refs/pr/1, not in the cache
  const fs::path snapshot = repository / "snapshots" / commit;
  return is_folder(snapshot) ? std::optional(snapshot) : std::nullopt;
}

/// A tokeniser's download leaves a snapshot without weights under one of a model's two names.
bool has_weights(const fs::path& snapshot) {
  return is_file(snapshot / "model.safetensors") || is_file(snapshot / "model.safetensors.index.json");
}

fs::path find_in_cache(const std::string& name, const std::string& revision) {
  const fs::path cache = cache_folder();
  const std::vector<std::string> names = names_in_cache(name);
  std::string looked_for;
  std::string found;
  std::optional<fs::path> without_weights;
  for (const std::string& candidate : names) {
    const fs::path repository = cache / folder_in_cache(candidate);
    looked_for += (looked_for.empty() ? "" : " and ") + repository.filename().native();
    if (!is_folder(repository)) continue;
    const std::optional<fs::path> snapshot = find_snapshot(repository, revision);
    if (snapshot && is_file(*snapshot / "config.json")) {
      if (has_weights(*snapshot)) return *snapshot;
      if (!without_weights) without_weights = snapshot;
      continue;
    }
    found = snapshot ? label_of(*snapshot) + " has no config.json"
                     : label_of(repository) + " has no revision " + in_quotes(revision);
  }
  // Whoever opens it will say what it lacks.
  if (without_weights) return *without_weights;
  if (!found.empty()) throw Error(name + ": " + found + "; " + how_to_get(names, revision));
  const std::string where = cache.empty() ? "." : label_of(cache);
  throw Error(name + ": neither a folder nor in the cache " + where + " (looked for " + looked_for + "); " +
              how_to_get(names, revision));
}

}  // namespace

std::filesystem::path resolve_model(std::string_view model, std::string_view revision) {
  const bool may_be_path = !model.empty() && model.find('\0') == std::string_view::npos;
  if (may_be_path && is_folder(model)) return model;
  if (may_be_path && is_file(model)) {
    throw Error(one_line(model) + ": is a file; expected the folder of a model, with config.json in it");
  }
  if (!is_repository_name(model)) {
    throw Error(in_quotes(model) + ": no such folder, and not a model's name; expected a folder, or a name such as " +
                "openai-community/gpt2-xl");
  }
  if (!is_inside(revision)) {
    throw Error("revision " + in_quotes(revision) + ": expected a branch, a tag or a commit, such as main");
  }
  return find_in_cache(std::string(model), std::string(revision));
}

}  // namespace rometrace
