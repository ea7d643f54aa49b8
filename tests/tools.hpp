#pragma once

/// Programs that tests in Python drive. Each is a function, so that the zygote can be any of them; each file says what
/// its program reads and writes.
namespace rometrace::testing {

int tokenize(int argc, char** argv);
int resolve(int argc, char** argv);
int tensors(int argc, char** argv);
int randomstate(int argc, char** argv);
int logits(int argc, char** argv);
int moments(int argc, char** argv);

}  // namespace rometrace::testing
