// Where libtinfer is: in the build folder during development, inside the executable afterwards.
// The branches on platform are resolved by the bundler, so a binary embeds its own library only.
let path: string;
if (process.platform === "win32") {
  path = (await import("../../zig-out/bin/tinfer.dll", { with: { type: "file" } })).default;
} else if (process.platform === "darwin") {
  path = (await import("../../zig-out/lib/libtinfer.dylib", { with: { type: "file" } })).default;
} else {
  path = (await import("../../zig-out/lib/libtinfer.so", { with: { type: "file" } })).default;
}

export const libraryPath: string = path;
