// An identity provider by other authors, in another language, for tests only:
// node provider.mjs PORT. It prints "ready" once it answers.
import { Provider } from 'oidc-provider';

const port = Number(process.argv[2]);
const groups = { alice: ['engineers'] };

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'hoopctl', application_type: 'native', token_endpoint_auth_method: 'none', redirect_uris: [], response_types: [],
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
    },
    {
      client_id: 'billing', client_secret: '0123456789abcdef', redirect_uris: [], response_types: [],
      grant_types: ['client_credentials'],
    },
  ],
  features: {
    deviceFlow: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx, client) => (client.clientId === 'billing' ? 'urn:hoopctl:services' : undefined),
      getResourceServerInfo: () => ({ scope: '', audience: 'hoopctl-services', accessTokenFormat: 'jwt' }),
    },
  },
  scopes: ['openid', 'profile', 'groups', 'offline_access'],
  claims: { openid: ['sub', 'sid'], profile: ['preferred_username'], groups: ['groups'] },
  conformIdTokenClaims: false,
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id, groups: groups[id] ?? [] }) }),
});

provider.listen(port, '127.0.0.1', () => console.log('ready'));
