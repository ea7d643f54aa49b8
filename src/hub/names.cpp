#include "hub/names.hpp"

#include <algorithm>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

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

bool is_inside(std::string_view relative_path) {
  for (;;) {
    const std::size_t slash = std::min(relative_path.find('/'), relative_path.size());
    const std::string_view part = relative_path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.find('\0') != part.npos) return false;
    if (slash == relative_path.size()) return true;
    relative_path.remove_prefix(slash + 1);
  }
}

bool is_plain_name(std::string_view name) {
  return is_inside(name) && name.find('/') == name.npos;
}

void check_revision(std::string_view revision) {
  if (is_inside(revision)) return;
  throw Error("revision " + in_quotes(revision) + ": expected a branch, a tag or a commit, such as main");
}

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

std::string name_of_folder(std::string_view folder) {
  constexpr std::string_view kModels = "models--";
  if (!folder.starts_with(kModels)) return "";
  std::string name(folder.substr(kModels.size()));
  if (const std::size_t dashes = name.find("--"); dashes != std::string::npos) name.replace(dashes, 2, "/");
  return is_repository_name(name) ? name : "";
}

}  // namespace rometrace
