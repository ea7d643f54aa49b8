#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// How models, revisions and files of a hub may be called, and what a cache calls them.

/// A letter or digit of ASCII, or "_".
bool is_word(char c);

/// huggingface_hub's rules for "NAME" or "ORG/NAME" (validate_repo_id).
bool is_repository_name(std::string_view name);

/// A relative path whose components stay where they are put: none of them empty, "." or "..".
bool is_inside(std::string_view relative_path);

/// Such a path of one component: a file's name.
bool is_plain_name(std::string_view name);

/// Throws Error unless a revision can be called so: a branch, a tag, a commit, "refs/pr/1".
void check_revision(std::string_view revision);

/// The name, and the other one of a model that moved: the first models had names without an organisation, and caches
/// have them under either.
std::vector<std::string> names_in_cache(const std::string& name);

/// "models--ORG--NAME".
std::string folder_in_cache(const std::string& name);

/// The name that a folder in the cache is of; empty for folders that are not a model's.
std::string name_of_folder(std::string_view folder);

}  // namespace rometrace
