#include "rometrace/hub/cache.hpp"

#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "hub/cache_files.hpp"
#include "hub/model_files.hpp"
#include "hub/names.hpp"
#include "hub/settings.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/gguf_header.hpp"
#include "text/shell_word.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

std::string how_to_get(const std::vector<std::string>& names, const std::string& revision) {
  // The name with the organisation is the one that lasts.
  const std::string& name = names.back().find('/') == std::string::npos ? names.front() : names.back();
  return "get it with `rometrace fetch " + name +
         (revision == "main" ? "" : " --revision " + in_shell(one_line(revision))) + "`, or give a model's folder";
}

// ---- Looking it up ----

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// The commit that a revision stands for in one repository's folder: what refs/REVISION says, else itself.
std::string read_commit(const fs::path& repository, const std::string& revision) {
  const fs::path reference = repository / "refs" / revision;
  const std::optional<std::string> commit = read_reference(reference);
  if (!commit) return revision;
  if (!is_plain_name(*commit)) {
    throw Error(label_of(reference) + ": is " + in_quotes(*commit) + "; expected a commit");
  }
  return *commit;
}

std::optional<fs::path> find_snapshot(const fs::path& repository, const std::string& revision) {
  const std::string commit = read_commit(repository, revision);
  if (commit.find('/') != std::string::npos) return std::nullopt;  // a revision such as refs/pr/1, not in the cache
  const fs::path snapshot = repository / "snapshots" / commit;
  return is_folder(snapshot) ? std::optional(snapshot) : std::nullopt;
}

/// The GGUF file of a snapshot that has one and no config.json; nothing where it has none. Throws Error where there are
/// several to choose from.
std::optional<fs::path> only_gguf_file(const fs::path& snapshot, const std::string& name) {
  std::error_code ignored;
  if (fs::exists(snapshot / "config.json", ignored)) return std::nullopt;
  const auto files = gguf_models_in(snapshot);
  if (files.size() <= 1) return files.empty() ? std::nullopt : std::optional(files.front());
  throw Error(
      name + ": has " + std::to_string(files.size()) + " GGUF files in the cache; expected the name of one, such as " +
      one_line(name + "/" + files.front().lexically_relative(snapshot).native()) + " (rometrace models lists them)");
}

fs::path find_in_cache(const std::string& name, const std::string& revision) {
  const fs::path cache = cache_folder();
  const std::vector<std::string> names = names_in_cache(name);
  std::string looked_for;
  std::string lacking;  // what the first snapshot lacks
  std::string absent;
  for (const std::string& candidate : names) {
    const fs::path repository = cache / folder_in_cache(candidate);
    looked_for += (looked_for.empty() ? "" : " and ") + repository.filename().native();
    if (!is_folder(repository)) continue;
    const std::optional<fs::path> snapshot = find_snapshot(repository, revision);
    if (!snapshot) {
      absent = label_of(repository) + " has no revision " + in_quotes(revision);
      continue;
    }
    if (const auto file = only_gguf_file(*snapshot, candidate)) return *file;
    try {
      check_complete(*snapshot);
      return *snapshot;
    } catch (const Error& error) {
      if (lacking.empty()) lacking = std::string("not all of it is in the cache: ") + error.what();
    }
  }
  const std::string& found = lacking.empty() ? absent : lacking;
  if (!found.empty()) throw Error(name + ": " + found + "; " + how_to_get(names, revision));
  const std::string where = cache.empty() ? "." : label_of(cache);
  throw Error(name + ": neither a folder nor in the cache " + where + " (looked for " + looked_for + "); " +
              how_to_get(names, revision));
}

/// "ORG/NAME/FILE.gguf", taken apart behind the name; nothing for what is no such name.
std::optional<std::pair<std::string, std::string>> file_of_repository(std::string_view model) {
  const auto first = model.find('/');
  const auto second = first == std::string_view::npos ? first : model.find('/', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto repository = model.substr(0, second), file = model.substr(second + 1);
  if (!is_repository_name(repository) || !is_inside(file)) return std::nullopt;
  return std::pair{std::string(repository), std::string(file)};
}

/// A GGUF file in the cache. Throws Error if it is not there.
fs::path find_file_in_cache(std::string_view model, const std::string& revision) {
  check_revision(revision);
  std::string looked;
  if (const auto named = file_of_repository(model)) {
    for (const auto& name : names_in_cache(named->first)) {
      const auto repository = cache_folder() / folder_in_cache(name);
      if (!is_folder(repository)) continue;
      const auto snapshot = find_snapshot(repository, revision);
      if (snapshot && is_model_file(*snapshot / named->second)) return *snapshot / named->second;
    }
    looked = ", nor of " + named->first + " in the cache";
  }
  throw Error(one_line(model) + ": no such file" + looked + "; expected a GGUF file, a model's folder or its name");
}

/// Nothing if it is no path of a folder or of a file, which may be a GGUF file.
std::optional<fs::path> given_path(std::string_view model) {
  if (model.empty() || model.find('\0') != std::string_view::npos) return std::nullopt;
  return is_folder(model) || is_model_file(model) ? std::optional<fs::path>(model) : std::nullopt;
}

bool is_gguf_name(std::string_view model) {
  return model.ends_with(".gguf") && model.find('\0') == std::string_view::npos;
}

void check_name(std::string_view model) {
  if (is_repository_name(model)) return;
  throw Error(in_quotes(model) + ": no such folder, and not a model's name; expected a folder, or a name such as " +
              "openai-community/gpt2-xl");
}

}  // namespace

std::optional<fs::path> find_complete_model(std::string_view model, std::string_view revision) {
  if (const auto path = given_path(model)) return path;
  if (is_gguf_name(model)) return find_file_in_cache(model, std::string(revision));
  check_name(model);
  check_revision(revision);
  for (const std::string& name : names_in_cache(std::string(model))) {
    const fs::path repository = cache_folder() / folder_in_cache(name);
    if (!is_folder(repository)) continue;
    const auto snapshot = find_snapshot(repository, std::string(revision));
    if (!snapshot) continue;
    if (const auto file = only_gguf_file(*snapshot, name)) return file;
    if (is_complete(*snapshot)) return snapshot;
  }
  return std::nullopt;
}

fs::path resolve_model(std::string_view model, std::string_view revision) {
  if (const auto path = given_path(model)) return *path;
  if (is_gguf_name(model)) return find_file_in_cache(model, std::string(revision));
  check_name(model);
  check_revision(revision);
  return find_in_cache(std::string(model), std::string(revision));
}

}  // namespace rometrace
